"""Tensors of a folder by the bare names of a checkpoint: no prefix, no heads, no layers that were cut off."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from embedtrain.average import Tensors, open_tensors
from embedtrain.config.errors import UserError
from embedtrain.model.checkpoint import DENSE, WEIGHTS

OLD_NORMS = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}


def skeleton_of(config: PretrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a config without memory for its weights."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
    return model


def open_backbone(folder: Path, skeleton: PreTrainedModel, origin: str, stack: ExitStack) -> Tensors:
    """The tensors that the skeleton has, from a folder's files.

    Raises UserError where one is missing or of another shape.
    """
    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in skeleton.named_parameters()
        if not name.startswith("pooler.")
    }
    stored = open_tensors(folder, stack)
    tensors = stored.renamed(bare_names(stored.info, shapes, origin))
    for name, shape in shapes.items():
        found = tensors.info[name].shape
        if found != shape:
            raise UserError(f"{origin}: tensor '{name}' has the shape {found}, its config.json says {shape}")
    return Tensors(origin, tensors.info, tensors.read, tensors.read_rows)


def bare_names(stored: Iterable[str], wanted: Iterable[str], origin: str) -> dict[str, str]:
    """The stored name of each wanted one: they may share a prefix, and norms their names of before 2019.

    Raises UserError where some have none.
    """
    known, names = set(stored), list(wanted)
    prefixes = {name.removesuffix(names[0]) for name in known if name.endswith(names[0])} | {""}
    found = [spelled(prefix, names, known) for prefix in sorted(prefixes)]
    best = max(found, key=len)
    missing = [name for name in names if name not in best]
    if missing:
        raise UserError(f"{origin}: {len(missing)} weights are missing, first {missing[0]}")
    return best


def spelled(prefix: str, names: Iterable[str], known: set[str]) -> dict[str, str]:
    """Which of the names are known under the prefix, and how they are written there."""
    written = {}
    for name in names:
        old = next((name.removesuffix(new) + old for new, old in OLD_NORMS.items() if name.endswith(new)), "")
        for spelling in (name, old):
            if spelling and prefix + spelling in known:
                written[name] = prefix + spelling
                break
    return written


def open_dense(folders: Iterable[Path], stack: ExitStack) -> Tensors | None:
    """The linear layers of Dense modules, by the names that a checkpoint gives them."""
    opened = [open_tensors(folder / WEIGHTS, stack) for folder in folders]
    together = None
    for number, tensors in enumerate(opened):
        named = tensors.renamed(dense_names(number, tensors.info))
        together = named if together is None else together.beside(named)
    return together


def dense_names(number: int, stored: Mapping[str, object]) -> dict[str, str]:
    """Checkpoint's name → name in the file; each linear layer is followed by its activation."""
    return {f"{DENSE}{2 * number}.{name.removeprefix('linear.')}": name for name in stored}
