"""A soup folded into one adapter on the base: the factors as a checkpoint's files, or as PEFT's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from embedtrain.artifacts import write_json
from embedtrain.average import Tensors, tensors_in_memory, write_tensors
from embedtrain.average.fold import Folded, overall_error
from embedtrain.config.tuning import Lora
from embedtrain.model.adapter import PREFIX
from embedtrain.model.adapter import WEIGHTS as PEFT_WEIGHTS
from embedtrain.model.checkpoint import ADAPTER_WEIGHTS, DENSE, SPEC, Saved, write_spec
from embedtrain.model.encoder import EncoderSpec
from embedtrain.model.existing import ADAPTER
from embedtrain.model.ingredients import Ingredient
from embedtrain.model.ingredients.adapters import PART_A, PART_B
from embedtrain.model.ingredients.names import skeleton_of
from embedtrain.model.ingredients.opening import hash_base
from embedtrain.model.ingredients.writing import PROVENANCE, aside, copy_settings, write_dense
from embedtrain.model.lora import target_names
from embedtrain.model.safe_files import MODULES, read_modules


@dataclass(frozen=True)
class FoldedAdapter:
    """Factors of every adapted layer; `spec` names the base that they belong on, `base_hash` its weights."""

    parts: Sequence[Folded]
    rank: int
    spec: EncoderSpec
    base_hash: str

    @property
    def factors(self) -> dict[str, Tensor]:
        """A and B of every layer, by bare names."""
        named: dict[str, Tensor] = {}
        for part in self.parts:
            if part.a_RI is not None and part.b_OR is not None:
                layer = part.name.removesuffix(".weight")
                named |= {layer + PART_A: part.a_RI, layer + PART_B: part.b_OR}
        return named

    @property
    def facts(self) -> dict[str, Any]:
        """Relative Frobenius errors, of all differences and of each layer; what differs and is left out."""
        return {
            "rank": self.rank,
            "base": self.spec.base,
            "error": overall_error(self.parts),
            "layers": {part.name: part.error for part in self.parts if part.a_RI is not None},
            "left_out": [part.name for part in self.parts if part.a_RI is None and part.norm],
        }


def adapted_weights(ingredient: Ingredient) -> list[str]:
    """Names of the weights that adapters on all linear layers change."""
    skeleton = skeleton_of(ingredient.config, trust_remote_code=ingredient.spec.trust_remote_code)
    return [f"{name}.weight" for name in target_names(skeleton, Lora())]


def hash_as_loaded(base: Tensors, precision: str) -> str:
    """The hash of a base as an encoder holds it: a Dense in float32 whatever the backbone is."""
    dense = [name for name in base.info if name.startswith(DENSE)]
    backbone = base.only([name for name in base.info if name not in dense])
    return hash_base(backbone.cast(getattr(torch, precision)).beside(base.only(dense).cast(torch.float32)))


def write_own(adapter: FoldedAdapter, first: Ingredient, folder: Path, provenance: Mapping[str, Any]) -> None:
    """An adapter checkpoint. Raises UserError where the folder is there already, or the disk is full."""
    with aside(folder) as partial:
        write_json(partial / PROVENANCE, provenance)
        fill_own(adapter, first, partial)


def fill_own(adapter: FoldedAdapter, first: Ingredient, folder: Path) -> None:
    """The files of an adapter checkpoint; `encoder.json` last."""
    write_tensors(folder / ADAPTER_WEIGHTS, tensors_in_memory(adapter.factors, str(folder)))
    lora = Lora(rank=adapter.rank, alpha=adapter.rank)
    saved = Saved(adapter.spec, lora, adapter.base_hash, adapter.spec.precision)
    first.config.architectures = [first.architecture]
    write_spec(folder, saved, first.tokenizer, first.config)


def write_peft(
    adapter: FoldedAdapter,
    merged: Tensors,
    first: Ingredient,
    folder: Path,
    provenance: Mapping[str, Any],
) -> None:
    """A PEFT adapter, and beside it all that `first` says of itself; Dense modules are whole, not folded.

    Of a checkpoint it is a checkpoint, too. Raises UserError where the folder is there already, or the disk
    is full.
    """
    with aside(folder) as partial:
        write_json(partial / PROVENANCE, provenance)
        if (first.folder / MODULES).is_file():
            modules = [module.path for module in read_modules(first.folder)]
            for path in sorted({"", *modules}):
                copy_settings(first.folder / path, partial / path)
            for number, place in enumerate(first.dense_folders):
                write_dense(merged, number, place, partial / place.relative_to(first.folder))
            fill_peft(adapter, partial / modules[0])
        elif (first.folder / SPEC).is_file():
            fill_peft(adapter, partial)
            fill_own(adapter, first, partial)
        else:
            copy_settings(first.folder, partial)
            fill_peft(adapter, partial)


def fill_peft(adapter: FoldedAdapter, folder: Path) -> None:
    """The two files of a PEFT adapter."""
    layers = [name.removesuffix(PART_A) for name in adapter.factors if name.endswith(PART_A)]
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank,
        target_modules=layers,
        base_model_name_or_path=adapter.spec.base,
        revision=adapter.spec.base_revision,
        inference_mode=True,
    ).to_dict()
    named = {PREFIX + name: tensor for name, tensor in adapter.factors.items()}
    write_tensors(folder / PEFT_WEIGHTS, tensors_in_memory(named, str(folder)))
    in_order = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    write_json(folder / ADAPTER, in_order)
