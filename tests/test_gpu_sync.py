"""Where a training step waits for the GPU: in the places named here, and nowhere else.

A GPU that is read from has nothing left to do until the next kernel is sent. The reads of an objective show
on a CPU too; copies to the device that block show on a GPU alone.
"""

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
from contrastive import add_learned, make_batch, make_trainable, tiny_encoder
from tiny_models import save_tiny
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.dist import average_gradients
from embedtrain.loss.objective import build_objective
from embedtrain.model.load import load_encoder
from embedtrain.train.step import gather_batch, train_step
from tools.parity_cases import OBJECTIVES, rich_rows, teach

READS = {
    "loss.objective.check_found": "whether vectors are finite and negatives were found, once a step",
    "loss.blocks.pairs": "how many positives the local queries have",
    "loss.infonce.width": "how many positives a query has, to decide whether scores are streamed",
    "loss.masks.positive_keys": "the most positives of a query, for the mask same_text",
    "loss.mixing.own_parents": "the most hard negatives of a query",
    "loss.mixing.shared_mixed": "which queries have two parents to mix",
    "loss.mixing.draw": "random numbers are drawn on the host and copied",
    "loss.soft_labels.own_groups": "the most candidates of a query",
    "loss.soft_labels.log_probabilities": "how many queries have two teacher scores",
    "loss.soft_labels.margin_mse": "how many positives have a teacher score",
    "loss.graded.cosent": "how many pairs are graded",
    "loss.spread.first_of_each": "how many texts differ",
    "loss.embed_distill.local_texts": "how many texts are local",
}
"""Functions of a step, and what they wait for; the loop waits for the gradient's norm and its figures too."""
SIZED_BY_VALUES = {"_local_scalar_dense", "nonzero", "bincount", "_unique2", "masked_select", "isin"}
PLAIN, CHUNK_TOKENS = 10**6, 64


class Watch(TorchDispatchMode):
    """Notes which function of embedtrain calls what would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in SIZED_BY_VALUES or name == "lift_fresh" or (name.startswith("index") and masks(args)):
            self.found[caller()] += 1
        return func(*args, **(kwargs or {}))


def masks(args: tuple[Any, ...]) -> bool:
    """Whether an element is chosen by a mask and not by its place."""
    chosen = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else []
    return any(isinstance(x, Tensor) and x.dtype == torch.bool for x in chosen)


def caller() -> str:
    """The function of embedtrain that is at work; of an expression within, the one around it."""
    package = Path(sys.modules["embedtrain"].__file__ or "").parent
    for frame in reversed(traceback.extract_stack()):
        if Path(frame.filename).is_relative_to(package) and not frame.name.startswith("<"):
            module = Path(frame.filename).relative_to(package).with_suffix("")
            return ".".join([*module.parts, frame.name])
    return "backward"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_reads_where_it_says(name: str) -> None:
    """`check_found` reads by `tolist`, which the watch does not see; backward reads nothing."""
    encoder = tiny_encoder("lora")
    add_learned(encoder, OBJECTIVES[name], teach)
    batch = make_batch(encoder, rich_rows(), teacher=teach)
    with torch.no_grad():
        vectors = encoder(batch.queries), encoder(batch.documents)
    g = gather_batch(batch, *(x.requires_grad_() for x in vectors))
    objective = build_objective(OBJECTIVES[name])
    with Watch() as watch:
        objective(g, lambda counts: counts, dict(encoder.learned.items()))[0].backward()
    assert watch.found.keys() <= READS.keys()
    assert watch.found  # so the watch sees something


def test_the_watch_sees_reads() -> None:
    x = torch.arange(3.0, requires_grad=True)
    with Watch() as watch:
        x[x > 1].sum().backward()
        int(x.argmax())
        torch.tensor(3.0)
    assert watch.found == {"backward": 4}  # the mask counts forth and back


# --- on a GPU -----------------------------------------------------------------------------------------------


@contextmanager
def waiting_is(mode: str) -> Iterator[None]:
    """What happens where the host waits for the GPU: `error` or nothing."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def may_wait(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def waiting(*args: Any, **kwargs: Any) -> Any:
        with waiting_is("default"):
            return function(*args, **kwargs)

    return waiting


def let_wait(places: list[str], patch: pytest.MonkeyPatch) -> None:
    """Let these functions wait, under whatever name a module of embedtrain knows them."""
    for place in places:
        module, name = place.rsplit(".", 1)
        function = getattr(sys.modules[f"embedtrain.{module}"], name)
        waiting = may_wait(function)
        for known in [m for key, m in sys.modules.items() if key.startswith("embedtrain.")]:
            for key in [key for key, value in vars(known).items() if value is function]:
                patch.setattr(known, key, waiting)


@pytest.mark.gpu
@pytest.mark.parametrize("keep_tokens", [0, PLAIN])
@pytest.mark.parametrize("name", ["infonce", "all blocks", "sigmoid", "distill_kl"])
def test_a_step_waits_for_the_gpu_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keep_tokens: int
) -> None:
    """With packed texts: of padded ones transformers reads in every call whether the mask is full.

    A first step may wait anywhere: libraries begin, and memory is taken.
    """
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    base = Base(model=str(save_tiny("llama", tmp_path)))
    encoder = load_encoder(base, EncoderConfig(), TextFormat(), precision="bfloat16", device="cuda")
    make_trainable(encoder, "lora")
    add_learned(encoder, OBJECTIVES[name], teach)
    encoder.to("cuda").train()
    assert encoder.padded is None
    batch = make_batch(encoder, rich_rows(), teacher=teach)
    objective = build_objective(OBJECTIVES[name])

    def step() -> Tensor:
        figures = train_step(encoder, batch, objective, chunk_tokens=CHUNK_TOKENS, keep_tokens=keep_tokens)
        average_gradients(p for _, p in encoder.trainable())
        return figures["loss"]

    expected = step()
    let_wait(list(READS), monkeypatch)
    with waiting_is("error"):
        found = step()
        with pytest.raises(RuntimeError, match="synchroniz"):  # so that the test can fail
            found.item()
    torch.testing.assert_close(found, expected)
