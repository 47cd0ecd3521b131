"""Proves that texts which stand end to end are encoded as if each were alone.

In every layer, on the layer's own input, the gradient of a text's first row by the states of all tokens is
looked at: exactly zero at every other text's, as `embedtrain.model.proof` would have it at its own. Then the
last states are compared with those of each text alone: so positions begin anew.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.batch import TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.model.layout import layers_of
from embedtrain.model.packed import PACKED, groups_of, packed_states
from embedtrain.model.proof import random_ids, reaches, sensitivity, watching

LENGTHS = (5, 7, 7, 3)
MOST_DIFFERENCE = {torch.float32: 1e-3, torch.float64: 1e-6}
ROUGHLY = 0.1  # of states in less than float32


def pack_texts(backbone: PreTrainedModel, attention: str) -> str | None:
    """Let a backbone with `sdpa` attention take texts end to end; why it pads them still, where it does."""
    backbone.set_attn_implementation(PACKED)
    if backbone.config._attn_implementation != PACKED:
        return f"{type(backbone).__name__} takes no attention function"
    fault = packing_fault(backbone, attention)
    if fault is not None:
        backbone.set_attn_implementation("sdpa")
    return fault


def packing_fault(backbone: PreTrainedModel, attention: str) -> str | None:
    """What goes wrong where texts stand end to end; None where nothing does."""
    ids = random_ids(backbone, torch.Size((1, sum(LENGTHS))))[0].tolist()
    ends = torch.tensor(LENGTHS).cumsum(0).tolist()
    texts = [ids[end - length : end] for end, length in zip(ends, LENGTHS, strict=True)]
    layers = layers_of(backbone)
    watch = Apart(attention, reaches(backbone, layers), ends)
    was_training = backbone.training
    backbone.eval()
    try:
        with watching(layers, watch), torch.no_grad():
            batch = TokenBatch.of(texts)
            together = packed_states(backbone, batch, groups_of(batch), backbone.device)
        with torch.no_grad():
            alone = torch.cat([alone_states(backbone, text) for text in texts])
    except UserError as error:
        return str(error)
    except (TypeError, ValueError, RuntimeError):
        return f"{type(backbone).__name__} takes no positions of tokens, or hands nothing on to its attention"
    finally:
        backbone.train(was_training)
    difference = float((together - alone).norm() / alone.norm())
    if difference > MOST_DIFFERENCE.get(together.dtype, ROUGHLY):
        return f"its vectors differ by {difference:.1g} from those of each text alone"
    return None


def alone_states(backbone: PreTrainedModel, text: list[int]) -> Tensor:
    """Last states of a text's tokens in a plain call."""
    states: Tensor = backbone(input_ids=torch.tensor([text], device=backbone.device)).last_hidden_state[0]
    return states


@dataclass
class Apart:
    """Checks each layer as the backbone runs it on texts that end at `ends`."""

    attention: str
    reaches: list[int | None]
    ends: list[int]

    def check(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise UserError where a text's first token sees another text, or not what it must of its own."""
        reach = self.reaches[index]
        for end, length in zip(self.ends, LENGTHS, strict=True):
            first = end - length
            seen = sensitivity(layer, args, kwargs, 0, first).any(dim=1)
            if bool(seen[:first].any()) or bool(seen[end:].any()):
                raise UserError(f"in layer {index} ({type(layer).__name__}) texts see each other")
            target = end - 1 if reach is None else min(end - 1, first + reach)
            if bool(seen[target]) != (self.attention == "bidirectional"):
                raise UserError(f"layer {index} ({type(layer).__name__}) is then not {self.attention}")
