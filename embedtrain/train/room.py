"""Room on the disk for what a training leaves there."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.config.errors import disk_full_is_an_error


@contextmanager
def room_for_checkpoint(
    root: Path, step: int, named: Sequence[tuple[str, Parameter]], optimizer: Optimizer
) -> Iterator[Path]:
    """Writing the checkpoint of a step; where the disk is full, what was written of it goes.

    Raises UserError then, with the bytes that are free and needed. Checkpoints before stay as they are.
    """
    folder = root / f"step-{step:06d}"
    try:
        with disk_full_is_an_error(folder, checkpoint_bytes(named, optimizer)):
            yield root
    except BaseException:
        shutil.rmtree(root / f".{folder.name}.partial", ignore_errors=True)
        raise


def checkpoint_bytes(named: Sequence[tuple[str, Parameter]], optimizer: Optimizer) -> int:
    """Bytes of the parameters and of what the optimizer holds of each."""
    states = [x for values in optimizer.state.values() for x in values.values() if isinstance(x, Tensor)]
    return sum(x.nbytes for x in [*(p for _, p in named), *states])
