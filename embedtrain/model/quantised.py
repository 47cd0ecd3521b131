"""A base in 4 bits (NF4), for training adapters on a small GPU: QLoRA.

Only a train stage holds the base so. Its adapters are saved for the base as it was loaded, so every later
stage, the export among them, puts them on the weights in full precision.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import nn

from embedtrain.config.errors import UserError
from embedtrain.model.checkpoint import base_parameters
from embedtrain.model.encoder import Encoder, hash_tensors
from embedtrain.model.layout import layers_of

BITS = "nf4"


def require_bitsandbytes() -> Any:
    """The library that holds and multiplies 4-bit weights."""
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "base.load is 'nf4', and bitsandbytes is not installed: pip install 'embedtrain[qlora]', "
            "or leave load out"
        )
    import bitsandbytes

    return bitsandbytes


def quantise(encoder: Encoder) -> None:
    """Give the linear layers inside the stack 4-bit weights, made when they move to the GPU; adapters stay.

    The hash of the weights as they are is kept for the checkpoint. Raises UserError where earlier adapters
    were folded into the weights: no later stage would find them there.
    """
    library = require_bitsandbytes()
    if encoder.folded:
        raise UserError(
            "base.load is 'nf4', which keeps the base as it is, but the encoder to start from has other "
            "adapters or weights than its base; start from the base, or give both stages the same lora"
        )
    encoder.base_hash = hash_tensors(base_parameters(encoder))
    layers = layers_of(encoder.backbone)
    for name, module in list(layers.named_modules()):
        if type(module) is nn.Linear:
            parent, _, child = name.rpartition(".")
            setattr(layers.get_submodule(parent), child, in_4_bits(library, module))


def in_4_bits(library: Any, linear: nn.Linear) -> nn.Module:
    """The layer with NF4 weights, their scales in 8 bits; products are in the precision of what comes in."""
    layer: nn.Module = library.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        compress_statistics=True,
        quant_type=BITS,
        device="meta",
    )
    layer.weight = library.nn.Params4bit(
        linear.weight.detach(), requires_grad=False, compress_statistics=True, quant_type=BITS
    )
    layer.bias = linear.bias
    return layer


def drift(quantised: np.ndarray, merged: np.ndarray) -> dict[str, float]:
    """How far vectors of the merged weights are from those that were trained: cosines over texts."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (quantised, merged)]
    cosines = (unit[0] * unit[1]).sum(axis=1)
    return {"min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean())}
