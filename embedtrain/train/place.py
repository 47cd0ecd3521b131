"""An encoder made ready to train: on its device, alike on all processes or shared out among them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import Parameter

from embedtrain.config.schema import Machine
from embedtrain.dist import broadcast_parameters, current, in_turns
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.sharding import is_sharded, shard_weights, whole_tensors


def place_encoder(
    encoder: Encoder,
    device: torch.device,
    machine: Machine,
    *,
    dropout: bool = True,
    sharded: bool = False,
) -> list[tuple[str, Parameter]]:
    """Names and parameters that training changes; tells why texts are padded that were to be packed."""
    if sharded:
        share_out(encoder, device)
    encoder.to(device).train(dropout)
    if machine.activation_checkpointing:
        encoder.checkpoint_activations()
    if encoder.spec.attention_kernel == "packed" and encoder.padded and current().rank == 0:
        print(f"texts are padded, not packed: {encoder.padded}", file=sys.stderr)
    named = encoder.trainable()
    broadcast_parameters(p for _, p in named)
    return named


def share_out(encoder: Encoder, device: torch.device) -> None:
    """Give each process its part of the backbone's matrices; adapters, being small, stay whole."""
    adapters = [p for p in encoder.backbone.parameters() if p.requires_grad] if encoder.lora else []
    mixed = encoder.spec.precision == "bfloat16" and encoder.backbone.dtype == torch.float32
    shard_weights(
        encoder.backbone,
        layers_of(encoder.backbone),
        device.type,
        whole=adapters,
        products=torch.bfloat16 if mixed else None,
    )
    encoder.sharded, encoder.take_turns = True, in_turns


@contextmanager
def whole_weights(encoder: Encoder) -> Iterator[None]:
    """On the first process, the encoder with all weights on the host, to be saved; every process must come.

    Nothing may be encoded meanwhile.
    """
    parts = [
        (module, name, parameter)
        for module in encoder.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if is_sharded(parameter)
    ]
    try:
        for module, name, parameter in parts:
            if whole := whole_tensors({name: parameter}):
                module._parameters[name] = Parameter(whole[name], requires_grad=parameter.requires_grad)
        yield
    finally:
        for module, name, parameter in parts:
            module._parameters[name] = parameter
