"""An encoder made ready to train: on its device, alike on all processes."""

import sys

import torch
from torch.nn import Parameter

from embedtrain.config.schema import Machine
from embedtrain.dist import broadcast_parameters, current
from embedtrain.model.encoder import Encoder


def place_encoder(
    encoder: Encoder, device: torch.device, machine: Machine, *, dropout: bool = True
) -> list[tuple[str, Parameter]]:
    """Names and parameters that training changes; tells why texts are padded that were to be packed."""
    encoder.to(device).train(dropout)
    if machine.activation_checkpointing:
        encoder.checkpoint_activations()
    if encoder.spec.attention_kernel == "packed" and encoder.padded and current().rank == 0:
        print(f"texts are padded, not packed: {encoder.padded}", file=sys.stderr)
    named = encoder.trainable()
    broadcast_parameters(p for _, p in named)
    return named
