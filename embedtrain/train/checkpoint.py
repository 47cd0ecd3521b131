"""What a stopped training goes on from: a folder a checkpoint, whole or not there.

Tensors are safetensors, the rest JSON; nothing is pickled. `done.json`, written last, holds the hash of every
file, so a damaged checkpoint is told from a whole one.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.artifacts import DONE, hash_file, mark_done, read_json, write_json
from embedtrain.config.errors import UserError
from embedtrain.dist import current
from embedtrain.sharding import part_like, whole_tensors

PARAMETERS, OPTIMIZER, STATE = "parameters.safetensors", "optimizer.safetensors", "state.json"
State = dict[str, Any]
Named = list[tuple[str, Parameter]]


def save_checkpoint(root: Path, state: State, named: Named, optimizer: Optimizer, keep_last: int) -> Path:
    """Write `root/step-…`, then remove all but the last `keep_last`. `state` holds `step` and `identity`.

    Every process must come, the first one writes: whole tensors, however the weights are sharded.
    """
    folder = root / f"step-{state['step']:06d}"
    parameters = whole_tensors({name: p.detach() for name, p in named})
    numbers = whole_tensors(_optimizer_tensors(optimizer))
    if current().rank != 0:
        return folder
    aside = root / f".{folder.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _save_tensors(aside / PARAMETERS, parameters)
    _save_tensors(aside / OPTIMIZER, numbers)
    write_json(aside / STATE, state)
    mark_done(aside, {name: hash_file(aside / name) for name in (PARAMETERS, OPTIMIZER, STATE)})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    for old in _folders(root)[:-keep_last]:
        shutil.rmtree(old)
    return folder


def newest_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, if any, and a message for each newer one that was passed over."""
    messages: list[str] = []
    for folder in reversed(_folders(root)):
        fault = _fault(folder)
        if fault is None:
            return folder, messages
        messages.append(f"{folder}: passed over, {fault}")
    return None, messages


def load_checkpoint(folder: Path, identity: str, named: Named, optimizer: Optimizer) -> State:
    """Put a checkpoint's numbers into the parameters and the optimizer; returns its state."""
    state: State = read_json(folder / STATE)
    if state["identity"] != identity:
        raise UserError(
            f"{folder}: was made by another config, other rows or another model; "
            f"remove {folder.parent} to start anew"
        )
    saved = load_file(folder / PARAMETERS)
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(part_like(saved[name], parameter))
    tensors = load_file(folder / OPTIMIZER)
    numbers: dict[int, dict[str, Tensor]] = {}
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        numbers.setdefault(int(index), {})[key] = part_like(tensor, trained[int(index)])
    optimizer.load_state_dict(optimizer.state_dict() | {"state": numbers})
    return state


def _folders(root: Path) -> list[Path]:
    """Checkpoints in order of their steps."""
    return sorted(root.glob("step-*"), key=lambda folder: int(folder.name.partition("-")[2]))


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or nothing."""
    if not (folder / DONE).is_file():
        return f"it has no {DONE}"
    try:
        hashes = read_json(folder / DONE)
    except ValueError:
        return f"its {DONE} is not JSON"
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if hash_file(folder / name) != expected:
            return f"{name} is damaged"
    return None


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by the parameter's place in it: `12.exp_avg`."""
    numbers = optimizer.state_dict()["state"]
    return {f"{index}.{key}": tensor for index, values in numbers.items() for key, tensor in values.items()}


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
