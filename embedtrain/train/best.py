"""The parameters of the best validation so far, beside the checkpoints: `best/step-000150.safetensors`."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from embedtrain.artifacts import BEST, CHECKPOINTS, read_json
from embedtrain.dist import barrier, current
from embedtrain.model.checkpoint import save_tensors
from embedtrain.sharding import part_like, whole_tensors
from embedtrain.train.checkpoint import STATE, Named, State


def best_file(folder: Path, step: int) -> Path:
    """The parameters after a step of the stage in the folder."""
    return folder / BEST / f"step-{step:06d}.safetensors"


def keep_best(folder: Path, step: int, named: Named) -> None:
    """The first process writes the parameters of a step that is the best so far; all must come."""
    parameters = whole_tensors({name: p.detach() for name, p in named})
    if current().rank == 0:
        best_file(folder, step).parent.mkdir(exist_ok=True)
        save_tensors(parameters, best_file(folder, step))


def remove_beaten(folder: Path) -> None:
    """The first process removes parameters that were the best once, and are so to no checkpoint kept."""
    if current().rank != 0:
        return
    states = map(_read_state, (folder / CHECKPOINTS).glob(f"step-*/{STATE}"))
    wanted = {best_file(folder, state["best_step"]) for state in states if "best_step" in state}
    for file in set((folder / BEST).glob("step-*.safetensors")) - wanted:
        file.unlink()


def _read_state(file: Path) -> State:
    """What the file holds; nothing where it is damaged, for nothing goes on from there."""
    try:
        state: State = read_json(file)
    except ValueError:
        return {}
    return state


def restore_best(folder: Path, step: int, named: Named) -> None:
    """Put them back into the parameters, on every process: each may hold a part."""
    barrier()  # the first one has written them
    best = load_file(best_file(folder, step))
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(part_like(best[name], parameter))
