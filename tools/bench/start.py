"""What every peer starts from: one folder with a plain checkpoint, and one set of LoRA tensors.

The folder says `is_causal: false`, so transformers, and with it every peer, attends in both directions. It
has no chat template, which sentence-transformers would write around every text.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.load import load_encoder

RANK, ALPHA = 16, 32
ADAPTER = re.compile(r"(layers\.\d+\..+?)\.lora_([AB])\b")


def save_real(model: str, layers: int | None, folder: Path) -> None:
    """The first layers of a model as a plain checkpoint."""
    base = Base(model=model, keep_first_layers=layers)
    encoder = load_encoder(base, EncoderConfig(), TextFormat())
    settings = encoder.backbone.config.to_dict()
    settings.pop("quantization_config", None)
    plain = AutoModel.from_config(AutoConfig.for_model(**settings))
    plain.load_state_dict(encoder.backbone.state_dict())
    save_plain(plain, folder)
    pad = encoder.tokenizer.id_to_token(int(plain.config.pad_token_id or 0))
    PreTrainedTokenizerFast(tokenizer_object=encoder.tokenizer, pad_token=pad).save_pretrained(folder)


def save_random(settings: dict[str, Any], precision: str, device: str, seed: int, folder: Path) -> None:
    """Random weights of a shape, drawn on the device; the tokenizer is only there because peers open one."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModel.from_config(AutoConfig.for_model(**settings), dtype=getattr(torch, precision))
    save_plain(model, folder)
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    wrapped.save_pretrained(folder)


def save_plain(model: Any, folder: Path) -> None:
    """Weights and a config that is bidirectional and keeps no keys and values."""
    model.config.is_causal = False
    model.config.use_cache = False
    model.save_pretrained(folder)


def draw_lora(folder: Path, seed: int) -> dict[str, np.ndarray]:
    """LoRA tensors of every linear layer, by `layers.0.mlp.up_proj.A`.

    A starts as PEFT starts it. B is small and not zero: A would have no gradient to compare.
    """
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, np.ndarray] = {}
    for name, layer in linear_layers(model):
        first = torch.empty(RANK, layer.in_features)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        second = 0.02 * torch.randn(layer.out_features, RANK, generator=generator)
        drawn |= {f"{name}.A": first.numpy(), f"{name}.B": second.numpy()}
    return drawn


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Name from `layers` on and layer, of all linear layers in the stack."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "layers." in name:
            yield name[name.index("layers.") :], module


def adapters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The LoRA parameters of any peer under the names that `draw_lora` gives."""
    for name, parameter in model.named_parameters():
        match = ADAPTER.search(name)
        if match is not None and parameter.requires_grad:
            yield f"{match[1]}.{match[2]}", parameter


def fill_adapters(model: nn.Module, drawn: dict[str, np.ndarray]) -> None:
    """Copy the start; every tensor must find its place."""
    found = dict(adapters(model))
    if found.keys() != drawn.keys():
        odd = sorted(found.keys() ^ drawn.keys())
        raise ValueError(f"{len(odd)} adapters without a partner, first {odd[0]}")
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(torch.from_numpy(drawn[name]))
