"""The weights of an encoder as a reader: bare names, adapters merged as each tensor is read."""

from functools import lru_cache

import torch
from torch import Tensor

from embedtrain.average import TensorInfo, Tensors
from embedtrain.model.encoder import Encoder
from embedtrain.model.lora import lora_layers, merged_weight


def merged_readers(encoder: Encoder, origin: str) -> Tensors:
    """The backbone's tensors, at least float32; `origin` names them in errors. One is in memory at a time."""
    adapted = {f"{name}.weight": layer for name, layer in lora_layers(encoder.backbone)}
    stored = {
        name.replace(".base_layer.", "."): parameter.detach()
        for name, parameter in encoder.backbone.named_parameters()
        if ".lora_" not in name
    }
    info = {
        name: TensorInfo(torch.promote_types(tensor.dtype, torch.float32), tuple(tensor.shape))
        for name, tensor in stored.items()
    }

    @lru_cache(maxsize=1)
    def merged(name: str) -> Tensor:
        return merged_weight(adapted[name])

    def read(name: str) -> Tensor:
        return merged_weight(adapted[name]) if name in adapted else stored[name].to(info[name].dtype)

    def read_rows(name: str, start: int, stop: int) -> Tensor:
        whole = merged(name) if name in adapted else stored[name]
        return whole[start:stop].to(info[name].dtype)

    return Tensors(origin, info, read, read_rows)
