"""The proof of attention: every family and kernel, padded or not, one layer changed behind its back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import DECODERS, ENCODERS, WINDOW, save_tiny
from torch import Tensor, nn

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model import load
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.model.load import load_encoder
from embedtrain.model.proof import prove_attention

KERNELS = ("packed", "sdpa", "eager")
PADDINGS = {"none": (0, 0), "left": (3, 0), "right": (0, 3)}
BAD_LAYER = 1


def load_tiny(folder: Path, family: str, attention: str, kernel: str = "packed", **changes: Any) -> Encoder:
    path = save_tiny(family, folder / family, **changes)
    config = EncoderConfig(attention=attention, attention_kernel=kernel)
    return load_encoder(Base(model=str(path)), config, TextFormat())


def first_states(encoder: Encoder, last_id: int, padding: tuple[int, int]) -> list[Tensor]:
    """States of the first real token after every layer, in a text that ends in `last_id`."""
    left, right = padding
    ids = torch.tensor([[2] * left + [300, 301, 302, 303, 304, last_id] + [2] * right])
    mask = torch.zeros_like(ids)
    mask[:, left : left + 6] = 1
    with torch.no_grad():
        out = encoder.backbone(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return [states[0, left] for states in out.hidden_states[1:]]


def shield_later_keys(layer: nn.Module, when: str) -> None:
    """Make one layer's attention causal: always, or only in batches with (or without) a mask."""

    def hook(attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given, states = kwargs["attention_mask"], kwargs["hidden_states"]
        if (when == "padded" and given is None) or (when == "unpadded" and given is not None):
            return args, kwargs
        size = states.shape[1]
        later = torch.ones(size, size, dtype=torch.bool).triu(1)
        lowest = torch.finfo(states.dtype).min
        mask = torch.zeros(1, 1, size, size, dtype=states.dtype).masked_fill(later, lowest)
        if given is not None and given.dtype == torch.bool:
            given = torch.zeros(given.shape, dtype=states.dtype).masked_fill(~given, lowest)
        mask = mask if given is None else (mask + given).clamp(min=lowest)
        return args, kwargs | {"attention_mask": mask}

    attention = layer.get_submodule("self_attn")
    attention.register_forward_pre_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", DECODERS)
def test_attention_is_as_asked(tmp_path: Path, family: str, kernel: str) -> None:
    """Seen from outside, without the proof: a later token moves the first one, or does not."""
    for attention in ("bidirectional", "causal"):
        encoder = load_tiny(tmp_path / attention, family, attention, kernel)
        for padding in PADDINGS.values():
            one, other = (first_states(encoder, last, padding) for last in (310, 350))
            moved = [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
            assert moved == [attention == "bidirectional"] * 3, (attention, padding)


@pytest.mark.parametrize("family", DECODERS)
def test_no_window_is_left_in_a_bidirectional_decoder(tmp_path: Path, family: str) -> None:
    """The first layer sees a token that stands beyond the window the model came with."""
    encoder = load_tiny(tmp_path, family, "bidirectional")
    ids = torch.randint(200, 399, (1, 3 * WINDOW), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[0, -1] = 399 - ids[0, -1]
    states = [
        encoder.backbone(input_ids=i, output_hidden_states=True).hidden_states[1][0, 0]
        for i in (ids, changed)
    ]
    assert not torch.equal(*states)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_pass(tmp_path: Path, family: str, kernel: str) -> None:
    encoder = load_tiny(tmp_path, family, "bidirectional", kernel)
    with pytest.raises(UserError, match=r"layer 0 of 3 .* is not causal"):
        prove_attention(encoder.backbone, "causal")


# a bidirectional Gemma's attention always gets a mask, so there is no batch without one
SHIELDS = [
    (f, w)
    for f in DECODERS
    for w in ("always", "padded", "unpadded")
    if (f, w) != ("gemma3_text", "unpadded")
]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("family", "when"), SHIELDS)
def test_one_causal_layer_is_refused(
    tmp_path: Path, family: str, kernel: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one layer is made causal after the weights are read, the loader refuses and names it."""
    read = load.read_backbone

    def read_and_shield(*args: Any) -> Any:
        backbone = read(*args)
        shield_later_keys(layers_of(backbone)[BAD_LAYER], when)
        return backbone

    monkeypatch.setattr(load, "read_backbone", read_and_shield)
    with pytest.raises(UserError, match=rf"layer {BAD_LAYER} of 3 \(\w+\) is not bidirectional: in a text"):
        load_tiny(tmp_path, family, "bidirectional", kernel)


@pytest.mark.parametrize("family", DECODERS)
def test_one_bidirectional_layer_is_refused_in_a_causal_model(tmp_path: Path, family: str) -> None:
    encoder = load_tiny(tmp_path, family, "causal", "eager")

    def drop_mask(attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"attention_mask": None}

    layer = layers_of(encoder.backbone)[BAD_LAYER]
    layer.get_submodule("self_attn").register_forward_pre_hook(drop_mask, with_kwargs=True)
    with pytest.raises(UserError, match=rf"layer {BAD_LAYER} of 3 .* is not causal"):
        prove_attention(encoder.backbone, "causal")


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_window_left_in_one_layer_is_refused(tmp_path: Path, kernel: str) -> None:
    """Only the long text can tell, so this also shows that there is one."""
    encoder = load_tiny(tmp_path, "llama", "bidirectional", kernel)

    def narrow(attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        size = kwargs["hidden_states"].shape[1]
        if size <= 4 * WINDOW:
            return args, kwargs
        near = torch.ones(size, size, dtype=torch.bool).triu(-WINDOW).tril(WINDOW)
        mask = torch.zeros(1, 1, size, size).masked_fill(~near, torch.finfo(torch.float32).min)
        return args, kwargs | {"attention_mask": mask}

    layer = layers_of(encoder.backbone)[2]
    layer.get_submodule("self_attn").register_forward_pre_hook(narrow, with_kwargs=True)
    with pytest.raises(UserError, match=r"layer 2 of 3 .* in a text of 48 tokens"):
        prove_attention(encoder.backbone, "bidirectional", WINDOW)


def test_a_layer_that_does_not_run_is_noticed(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path, "llama", "bidirectional")
    encoder.backbone.config.num_hidden_layers = 2
    with pytest.raises(UserError, match="only 2 of the model's 3 layers run"):
        prove_attention(encoder.backbone, "bidirectional")


@pytest.mark.parametrize("family", DECODERS)
def test_bfloat16_passes(tmp_path: Path, family: str) -> None:
    path = save_tiny(family, tmp_path)
    for attention in ("bidirectional", "causal"):
        encoder = load_encoder(
            Base(model=str(path)), EncoderConfig(attention=attention), TextFormat(), precision="bfloat16"
        )
        assert encoder.backbone.dtype == torch.bfloat16


def test_a_first_token_that_draws_all_attention_hides_nothing(tmp_path: Path) -> None:
    """In bfloat16 a finite change is lost beside a massive first state; the proof still tells both modes."""
    encoder = load_tiny(tmp_path, "llama", "bidirectional")
    backbone = encoder.backbone.to(torch.bfloat16)

    def swell(layer: nn.Module, args: Any) -> Any:
        states = args[0].clone()
        states[:, 0] = states[:, 0] + 3000.0
        return (states, *args[1:])

    layers_of(backbone)[1].register_forward_pre_hook(swell)
    one, other = (first_states(encoder, last, (0, 0))[1] for last in (310, 350))
    assert torch.equal(one, other), "the premise: the finite change is lost"
    prove_attention(backbone, "bidirectional")
    with pytest.raises(UserError, match=r"layer 0 of 3 .* is not causal"):
        prove_attention(backbone, "causal")


def test_the_proof_leaves_no_trace(tmp_path: Path) -> None:
    """Mode, gradients, hooks and random state are as before."""
    encoder = load_tiny(tmp_path, "llama", "bidirectional")
    encoder.backbone.train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    prove_attention(encoder.backbone, "bidirectional")
    assert encoder.backbone.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in encoder.parameters())
    assert not any(layer._forward_hooks for layer in layers_of(encoder.backbone))
