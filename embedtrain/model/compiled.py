"""The layers of a backbone in machine code while it trains, by `torch.compile`.

Each layer is compiled by itself: all of one kind share their code, so many layers take no longer than a few.
The number of tokens is left open. Attention stays as it is, for its kernels are machine code already.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface

from embedtrain.config.errors import UserError
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.model.packed import PACKED, attend


@contextmanager
def compiled_layers(encoder: Encoder, is_on: bool = True) -> Iterator[None]:
    """Within the block each layer is compiled, at its first call with each kind of input.

    Dropout draws the same numbers as without.
    """
    if not is_on:
        yield
        return
    require_compiler()
    layers = layers_of(encoder.backbone)
    AttentionInterface.register(PACKED, torch.compiler.disable(attend))
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        with torch._inductor.config.patch(fallback_random=True):
            yield
    finally:
        AttentionInterface.register(PACKED, attend)
        for layer in layers:
            layer._compiled_call_impl = None


def require_compiler() -> None:
    """Raise UserError where PyTorch finds no C++ compiler, which it needs on every device."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "compile is true in the machine file, but PyTorch finds no C++ compiler; install g++ or set "
            "compile: false"
        ) from None
