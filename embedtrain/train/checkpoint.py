"""What a stopped training goes on from: a folder a checkpoint, whole or not there.

Tensors are safetensors, the rest JSON; nothing is pickled. `done.json`, written last, holds the hash of every
file, so a damaged checkpoint is told from a whole one. All of it is on the disk before the folder gets its
name. `state.json` says what encoder the parameters belong to: its base and revision, attention, pooling, text
templates and prompts, and the shape of its adapters.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.artifacts import CHECKPOINTS, DONE, flush, hash_file, mark_done, read_json, write_json
from embedtrain.config.errors import UserError
from embedtrain.dist import barrier, current
from embedtrain.model.encoder import Encoder
from embedtrain.places import at
from embedtrain.sharding import part_like, whole_tensors
from embedtrain.train.log import CURVE, Figures, append_curve, cut_curve
from embedtrain.train.room import room_for_checkpoint

PARAMETERS, OPTIMIZER, STATE = "parameters.safetensors", "optimizer.safetensors", "state.json"
FILES = (PARAMETERS, OPTIMIZER, STATE)
State = dict[str, Any]
Named = list[tuple[str, Parameter]]


def first_state(identity: str, encoder: Encoder) -> State:
    """The state before the first step."""
    lora = encoder.lora.model_dump() if encoder.lora else None
    return {"step": 0, "identity": identity, "encoder": encoder.spec.to_json() | {"lora": lora}}


def resume_training(folder: Path, first: State, named: Named, optimizer: Optimizer) -> State:
    """The state of a stage folder's newest whole checkpoint, its numbers put in place; else `first`.

    The curve loses what is about to be done again, and the folder what a killed process left half written
    and the damaged checkpoints after the one that is gone on from.
    """
    root = folder / CHECKPOINTS
    checkpoint, messages = newest_checkpoint(root)
    state = first if checkpoint is None else load_checkpoint(checkpoint, first, named, optimizer)
    barrier()  # all have chosen, each by its own reading
    if current().rank == 0:
        print("".join(f"{message}\n" for message in messages), end="", file=sys.stderr)
        passed_over = [after for after in _folders(root) if _step(after) > int(state["step"])]
        for left in (*passed_over, *root.glob(".step-*.partial")):
            shutil.rmtree(left)
        folder.mkdir(parents=True, exist_ok=True)
        cut_curve(folder / CURVE, int(state["step"]))
    barrier()
    return state


def record_step(
    folder: Path,
    figures: Figures,
    state: State,
    named: Named,
    optimizer: Optimizer,
    *,
    keep_last: int,
    save: bool,
) -> None:
    """The first process adds a step to the curve and, where asked, all save a checkpoint."""
    at("checkpoint" if save else "curve")
    if current().rank == 0:
        append_curve(folder / CURVE, figures)
        if save:
            flush(folder / CURVE)
    if save:
        with room_for_checkpoint(folder / CHECKPOINTS, int(state["step"]), named, optimizer) as root:
            save_checkpoint(root, state, named, optimizer, keep_last)
        barrier()


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
    mark_done(aside, {name: hash_file(aside / name) for name in FILES})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    flush(root)
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


def load_checkpoint(folder: Path, first: State, named: Named, optimizer: Optimizer) -> State:
    """Put a checkpoint's numbers into the parameters and the optimizer; returns its state.

    Raises UserError where it is of another training than the one that begins with the state `first`.
    """
    state: State = read_json(folder / STATE)
    if state["identity"] != first["identity"]:
        before, now = state["encoder"], first["encoder"]
        changed = [
            f"{key} is {before[key]} there and {now[key]} here" for key in now if before[key] != now[key]
        ]
        raise UserError(
            f"{folder}: was made by another config, other rows or another model"
            f"{''.join(f' ({text})' for text in changed[:1])}; remove {folder.parent} to start anew"
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
    return sorted(root.glob("step-*"), key=_step)


def _step(folder: Path) -> int:
    """After which step a checkpoint was saved."""
    return int(folder.name.partition("-")[2])


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or nothing."""
    if not (folder / DONE).is_file():
        return f"it has no {DONE}"
    try:
        hashes = read_json(folder / DONE)
    except ValueError:
        return f"its {DONE} is not JSON"
    if sorted(hashes) != sorted(FILES):
        return f"its {DONE} names other files"
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
    flush(path)
