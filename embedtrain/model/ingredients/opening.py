"""From a folder to its tensors, and to what must be the same in all that are averaged."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from transformers import PretrainedConfig, PreTrainedModel

from embedtrain.artifacts import hash_file, hash_json
from embedtrain.average import Tensors, weight_files
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.model.adapter import WEIGHTS as PEFT_WEIGHTS
from embedtrain.model.checkpoint import ADAPTER_WEIGHTS, DENSE, SPEC, WEIGHTS, Saved, read_saved
from embedtrain.model.encoder import EncoderSpec, tensor_digest
from embedtrain.model.existing import ADAPTER
from embedtrain.model.ingredients.adapters import merge_adapter, own_factors, peft_factors
from embedtrain.model.ingredients.facts import collect_facts
from embedtrain.model.ingredients.names import open_backbone, open_dense, skeleton_of
from embedtrain.model.load import (
    Parts,
    find_base,
    find_saved,
    read_tokenizer,
    require_transformers,
    settle_base,
    settle_config,
)
from embedtrain.model.source import resolve_model

Kind = Literal["checkpoint", "adapter", "export"]


@dataclass(frozen=True)
class Ingredient:
    """A model on disk: its merged tensors by bare names, and what is known of it.

    Tensors are those of a full checkpoint: the backbone without heads, then `dense.N.weight`. `base` has the
    same names; only adapters know theirs. `facts` are texts for people; `hash` is of the files with weights.
    """

    origin: str
    folder: Path
    kind: Kind
    tensors: Tensors
    base: Tensors | None
    facts: Mapping[str, str]
    hash: str
    spec: EncoderSpec
    lora: Lora | None
    dtype: str
    config: PretrainedConfig
    tokenizer: Tokenizer
    architecture: str
    backbone_folder: Path
    dense_folders: tuple[Path, ...]


@dataclass(frozen=True)
class Read:
    """The parts of a model, and its stored tensors."""

    parts: Parts
    spec: EncoderSpec
    config: PretrainedConfig
    skeleton: PreTrainedModel
    backbone: Tensors
    dense: Tensors | None

    def tensors(self, precision: str | None = None) -> Tensors:
        """All tensors; with a precision as a model holds them, where a Dense is float32 with any backbone."""
        if precision is None:
            return self.backbone.beside(self.dense) if self.dense else self.backbone
        backbone = self.backbone.cast(getattr(torch, precision))
        return backbone.beside(self.dense.cast(torch.float32)) if self.dense else backbone


def open_ingredient(path: Path | str, stack: ExitStack) -> Ingredient:
    """A checkpoint, an adapter or an export, its files mapped until `stack` closes.

    Raises UserError where the folder is none of them, a file is missing or cut short, a tensor is not what
    the config says, or the base is not the one that an adapter was trained on.
    """
    require_transformers()
    folder = Path(path)
    if (folder / SPEC).is_file():
        saved = read_saved(folder)
        return open_full(folder, saved, stack) if saved.lora is None else open_own(folder, saved, stack)
    parts, spec, is_embedder = settle_base(Base(model=str(path)), EncoderConfig(), TextFormat(), "float32")
    if not is_embedder:
        raise UserError(
            f"{path}: nothing to average; found neither {SPEC} (an embedtrain checkpoint) nor modules.json "
            f"(a sentence-transformers folder) nor {ADAPTER} (a PEFT adapter)"
        )
    read = read_parts(parts, spec, str(path), stack)
    folder = resolve_model(str(path)).path
    return open_export(folder, read) if parts.adapter is None else open_peft(folder, read, stack)


def open_base(base: Base, like: Ingredient, stack: ExitStack) -> Tensors:
    """A model that others started from: as many layers as `like` has, its tensors by the same names."""
    if (Path(base.model) / SPEC).is_file():
        return open_ingredient(base.model, stack).tensors
    cut = base.model_copy(update={"keep_first_layers": like.config.num_hidden_layers})
    parts, spec, _ = settle_base(cut, EncoderConfig(), TextFormat(), "float32")
    return read_parts(parts, spec, base.model, stack).tensors()


def read_parts(parts: Parts, spec: EncoderSpec, origin: str, stack: ExitStack) -> Read:
    """The stored tensors of a model, named and shaped as its config says."""
    config, _ = settle_config(parts, spec)
    skeleton = skeleton_of(config, trust_remote_code=spec.trust_remote_code)
    backbone = open_backbone(parts.weights, skeleton, origin, stack)
    return Read(parts, spec, config, skeleton, backbone, open_dense(parts.dense_folders, stack))


def open_full(folder: Path, saved: Saved, stack: ExitStack) -> Ingredient:
    """A checkpoint with all weights."""
    read = read_parts(find_saved(folder, saved), saved.spec, str(folder), stack)
    return made("checkpoint", folder, read, read.tensors(), weight_files(folder), dtype=saved.dtype)


def open_export(folder: Path, read: Read) -> Ingredient:
    """A sentence-transformers folder."""
    tensors, parts = read.tensors(), read.parts
    files = [*weight_files(parts.weights), *(place / WEIGHTS for place in parts.dense_folders)]
    dtype = str(next(iter(tensors.info.values())).dtype).removeprefix("torch.")
    return made("export", folder, read, tensors, files, dtype=dtype)


def open_own(folder: Path, saved: Saved, stack: ExitStack) -> Ingredient:
    """A checkpoint with an adapter alone, merged into its base tensor by tensor."""
    assert saved.lora is not None
    spec, parts = saved.spec, find_base(saved.spec)
    if parts.adapter is not None:
        raise UserError(
            f"{folder}: its base {spec.base} is an adapter itself; "
            "only exports of such checkpoints are averaged"
        )
    parts = replace(parts, tokenizer=folder, tokenizer_is_ours=True, lowercase=False)
    read = read_parts(parts, spec, spec.base, stack)
    stored = read.tensors(spec.precision)
    found = hash_base(stored)
    if found != saved.base_weights:
        raise UserError(
            f"{folder}: its adapter was trained on {spec.base} with weights {saved.base_weights}, "
            f"but that base now has weights {found}"
        )
    merged = merge_adapter(stored, own_factors(folder, saved.lora, stack), str(folder))
    files = [folder / ADAPTER_WEIGHTS]
    return made(
        "adapter", folder, read, merged, files, dtype=saved.dtype, base=stored, known=found, lora=saved.lora
    )


def open_peft(folder: Path, read: Read, stack: ExitStack) -> Ingredient:
    """A PEFT folder, or a sentence-transformers folder around one."""
    place = read.parts.adapter
    assert place is not None
    stored = read.tensors(read.spec.precision)
    factors = peft_factors(place, read.skeleton, read.spec.base, stack)
    merged = merge_adapter(stored, factors, read.spec.base)
    files = [place / PEFT_WEIGHTS, *(dense / WEIGHTS for dense in read.parts.dense_folders)]
    return made("adapter", folder, read, merged, files, dtype="float32", base=stored, known=hash_base(stored))


def made(
    kind: Kind,
    folder: Path,
    read: Read,
    tensors: Tensors,
    files: Iterable[Path],
    *,
    dtype: str,
    base: Tensors | None = None,
    known: str | None = None,
    lora: Lora | None = None,
) -> Ingredient:
    """An ingredient with its facts; `known` is the hash of the base's weights."""
    tokenizer = read_tokenizer(read.parts, read.spec)
    return Ingredient(
        origin=tensors.origin,
        folder=folder,
        kind=kind,
        tensors=tensors,
        base=base.cast(torch.float32) if base else None,
        facts=collect_facts(read.spec, read.config, tokenizer, tensors, read.parts.dense, known),
        hash=hash_json({file.name: hash_file(file) for file in files}),
        spec=read.spec,
        lora=lora,
        dtype=dtype,
        config=read.config,
        tokenizer=tokenizer,
        architecture=type(read.skeleton).__name__,
        backbone_folder=read.parts.weights,
        dense_folders=read.parts.dense_folders,
    )


def hash_base(tensors: Tensors) -> str:
    """What `hash_tensors` gives for the parameters of an encoder, a block at a time."""
    return hash_json(
        sorted(
            tensor_digest(
                name if name.startswith(DENSE) else f"backbone.{name}", tensors.blocks(name), info.shape
            )
            for name, info in tensors.info.items()
        )
    )
