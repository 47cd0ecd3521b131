"""Adapters as factors, and their products on a base, row block by row block.

The product is made first and averaged then: the average of products is not the product of averages.
"""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraModel
from torch import Tensor
from transformers import PreTrainedModel

from embedtrain.average import TensorInfo, Tensors, open_tensors
from embedtrain.average.tensors import tensors_by_rows
from embedtrain.config.errors import UserError
from embedtrain.config.tuning import Lora
from embedtrain.model.adapter import PREFIX, lora_config
from embedtrain.model.adapter import WEIGHTS as PEFT_WEIGHTS
from embedtrain.model.checkpoint import ADAPTER_WEIGHTS
from embedtrain.model.lora import ADAPTER, lora_layers

PART_A, PART_B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Factors:
    """What is added to one weight: scale x B A, of tensors in an adapter's file."""

    adapter: Tensors
    name_a: str
    name_b: str
    scale: float

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows of the product, float64."""
        rows_of_b = self.adapter.rows(self.name_b, start, stop).to(torch.float64)
        return self.scale * (rows_of_b @ self.adapter.read(self.name_a).to(torch.float64))


def merge_adapter(base: Tensors, factors: Mapping[str, Factors], origin: str) -> Tensors:
    """W + scale x B A, summed in float64 and rounded once, to float32 at least."""
    check_factors(base, factors, origin)
    info = {
        name: TensorInfo(torch.promote_types(known.dtype, torch.float32), known.shape)
        for name, known in base.info.items()
    }

    def read_rows(name: str, start: int, stop: int) -> Tensor:
        rows = base.rows(name, start, stop)
        if name in factors:
            rows = rows.to(torch.float64) + factors[name].rows(start, stop)
        return rows.to(info[name].dtype)

    return tensors_by_rows(origin, info, read_rows)


def check_factors(base: Tensors, factors: Mapping[str, Factors], origin: str) -> None:
    """Raise UserError where a product has not the shape of a weight."""
    for name, pair in factors.items():
        shapes = [pair.adapter.info[part].shape for part in (pair.name_b, pair.name_a)]
        product = (shapes[0][0], shapes[1][1])
        found = base.info[name].shape if name in base.info else None
        if found != product or shapes[0][1] != shapes[1][0]:
            raise UserError(
                f"{origin}: its adapter does not fit {base.origin}: '{name}' has the shape {found}, "
                f"the adapter's factors {shapes[0]} and {shapes[1]}"
            )


def own_factors(folder: Path, lora: Lora, stack: ExitStack) -> dict[str, Factors]:
    """Those of an embedtrain checkpoint."""
    adapter = open_tensors(folder / ADAPTER_WEIGHTS, stack)
    scale = lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)
    layers = [name.removesuffix(PART_A) for name in adapter.info if name.endswith(PART_A)]
    return {f"{name}.weight": Factors(adapter, name + PART_A, name + PART_B, scale) for name in layers}


def peft_factors(
    folder: Path, skeleton: PreTrainedModel, origin: str, stack: ExitStack
) -> dict[str, Factors]:
    """Those of a PEFT folder; peft itself says, on a model without weights, which layers and what scales.

    Raises UserError for what is no plain product on linear layers.
    """
    stored = open_tensors(folder / PEFT_WEIGHTS, stack)
    # An adapter trained under a language-model head has one more `model.` in its names.
    adapter = stored.renamed({name.removeprefix(PREFIX).removeprefix("model."): name for name in stored.info})
    config = lora_config(folder)
    others = sorted(name for name in adapter.info if not name.endswith((PART_A, PART_B)))
    if others or config.fan_in_fan_out:
        raise UserError(
            f"{origin}: only plain LoRA on linear layers is averaged, found "
            f"{others[0] if others else 'transposed weights'}; merge it into its base first"
        )
    tuner = LoraModel(skeleton, config, ADAPTER, low_cpu_mem_usage=True)
    layers = dict(lora_layers(tuner.model))
    odd = sorted({name + part for name in layers for part in (PART_A, PART_B)} ^ set(adapter.info))
    if odd:
        raise UserError(
            f"{origin}: the adapter does not fit its base: {len(odd)} names differ, first {odd[0]}"
        )
    return {
        f"{name}.weight": Factors(adapter, name + PART_A, name + PART_B, float(layer.scaling[ADAPTER]))
        for name, layer in layers.items()
    }
