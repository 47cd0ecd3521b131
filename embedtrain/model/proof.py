"""Proves, layer by layer, that a backbone attends as it was asked to.

In every layer, on the layer's own input, the last key is changed and the first row watched. The change is
infinitesimal: the gradient of the first row by the last key's state. It is exactly zero where a causal mask
stands between them, and no rounding can hide it where none does (a finite change drowns in bfloat16 when the
first token draws nearly all attention to itself, as it does in most trained decoders).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from embedtrain.config.errors import UserError
from embedtrain.model.layout import layers_of

TOKENS = 12
PADDING = 3


@dataclass(frozen=True)
class Probe:
    """A batch of random ids, and for each row where its real tokens begin and end."""

    name: str
    mask: Tensor
    spans: tuple[tuple[int, int], ...]


def prove_attention(backbone: PreTrainedModel, attention: str, window: int = 0) -> None:
    """Raise UserError naming the layer whose attention is not `attention`.

    `window` is the longest sliding window the model came with: one text is longer than it. Layers that still
    have a window (an encoder's own local layers) are watched within their reach.
    """
    layers = layers_of(backbone)
    was_training = backbone.training
    backbone.eval()
    try:
        for probe in probes(window, backbone.config.max_position_embeddings - 2):
            watch = Watch(attention, probe, reaches(backbone, layers), len(layers))
            with watching(layers, watch), torch.no_grad():
                backbone(
                    input_ids=random_ids(backbone, probe.mask.shape),
                    attention_mask=probe.mask.to(backbone.device),
                )
            if watch.num_seen != len(layers):
                raise UserError(f"only {watch.num_seen} of the model's {len(layers)} layers run")
    finally:
        backbone.train(was_training)


def probes(window: int, max_tokens: int) -> Iterator[Probe]:
    """Texts without padding, with padding on either side, and one longer than any window."""
    whole = torch.ones(2, TOKENS)
    yield Probe("without padding", whole, ((0, TOKENS - 1),) * 2)
    padded = whole.clone()
    padded[0, :PADDING] = 0
    padded[1, TOKENS - PADDING :] = 0
    spans = ((PADDING, TOKENS - 1), (0, TOKENS - PADDING - 1))
    yield Probe("padded on the left and on the right", padded, spans)
    length = min(max(window + 2, 4 * TOKENS), max_tokens)
    yield Probe(f"of {length} tokens", torch.ones(1, length), ((0, length - 1),))


def random_ids(backbone: PreTrainedModel, shape: torch.Size) -> Tensor:
    """The same ids on every call."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = backbone.get_input_embeddings().num_embeddings
    ids = torch.randint(vocabulary // 2, vocabulary, shape, generator=generator)
    return ids.to(backbone.device)


def reaches(backbone: PreTrainedModel, layers: nn.ModuleList) -> list[int | None]:
    """For each layer how many tokens it may see to each side; None where it must see all."""
    values = backbone.config.to_dict()
    types = values.get("layer_types") or ["full_attention"] * len(layers)
    # ModernBERT's own local layers: its config gives the width of the window, both sides together
    reach = values["local_attention"] // 2 if values.get("local_attention") else None
    return [reach if kind == "sliding_attention" else None for kind in types]


@dataclass
class Watch:
    """Checks each layer as the backbone runs it."""

    attention: str
    probe: Probe
    reaches: list[int | None]
    num_layers: int
    num_seen: int = 0

    def check(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the layer once more on its own input and compare what moves with what must."""
        self.num_seen += 1
        reach = self.reaches[index]
        for row, (first, last) in enumerate(self.probe.spans):
            target = last if reach is None else min(last, first + reach)
            sees = bool(sensitivity(layer, args, kwargs, row, first)[target].any())
            if sees != (self.attention == "bidirectional"):
                raise UserError(self.refusal(index, layer, sees))

    def refusal(self, index: int, layer: nn.Module, sees: bool) -> str:
        """What is said of a layer that attends otherwise."""
        return (
            f"layer {index} of {self.num_layers} ({type(layer).__name__}) is not {self.attention}: in a text "
            f"{self.probe.name}, its first token {'sees' if sees else 'does not see'} the last"
        )


def sensitivity(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], row: int, first: int
) -> Tensor:
    """Gradient (L, D) of a random mixture of the first row's outputs by the states of a text's keys."""
    name = None if args else "hidden_states"
    states = (args[0] if name is None else kwargs[name]).detach().clone().requires_grad_()
    with torch.enable_grad():
        inputs = ((states, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: states})
        output = layer.forward(*inputs[0], **inputs[1])
        output = output[0] if isinstance(output, tuple) else output
        direction = torch.randn(output.shape[-1], generator=torch.Generator().manual_seed(1))
        mixture = (output[row, first].float() * direction.to(output.device)).sum()
        return torch.autograd.grad(mixture, states)[0][row]


class Checks(Protocol):
    """What looks at a layer and the arguments it was called with."""

    def check(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise UserError where something is wrong."""


@contextmanager
def watching(layers: nn.ModuleList, watch: Checks) -> Iterator[None]:
    """Call `watch.check` after each layer, with the very arguments it was called with."""

    def hook_of(index: int) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            watch.check(index, layer, args, kwargs)

        return hook

    handles = [layer.register_forward_hook(hook_of(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
