"""Adapters: seeded start, float32 beside bfloat16, merging, folding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import DECODERS, ENCODERS, TEXTS, save_tiny
from torch import Tensor, nn

from embedtrain.batch import TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.model.checkpoint import all_tensors
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, lora_layers, tune_all


def load_tiny(folder: Path, family: str = "llama", precision: str = "float32", **changes: object) -> Encoder:
    path = save_tiny(family, folder / family, **changes)
    return load_encoder(Base(model=str(path)), EncoderConfig(), TextFormat(), precision=precision)


def fill_b(encoder: Encoder, seed: int = 0, scale: float = 0.1) -> None:
    """Random B: with its zeros the product vanishes and a test would prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in encoder.trainable():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def adapters(encoder: Encoder) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in encoder.trainable()}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_merged_weights_are_the_adapters(tmp_path: Path, family: str, rslora: bool) -> None:
    """A plain model filled with the merged weights gives the adapted model's vectors, names included."""
    plain = load_tiny(tmp_path, family)
    names = set(plain.backbone.state_dict())
    untouched = plain.encode(TEXTS)
    adapted = load_tiny(tmp_path, family)
    add_lora(adapted, Lora(rank=4, alpha=6, rslora=rslora), seed=1)
    fill_b(adapted)
    vectors = adapted.encode(TEXTS)
    assert np.abs(vectors - untouched).max() > 1e-3, "the premise: the adapters do something"
    state = dict(all_tensors(adapted))
    assert set(state) == names
    plain.backbone.load_state_dict(state, strict=True)
    assert np.abs(plain.encode(TEXTS) - vectors).max() < 1e-6


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_the_scale_of_the_product(tmp_path: Path, rslora: bool, scale: float) -> None:
    """W + alpha / rank x B x A; with rsLoRA alpha / sqrt(rank)."""
    encoder = load_tiny(tmp_path)
    add_lora(encoder, Lora(rank=4, alpha=8, rslora=rslora, targets=("q_proj",)), seed=1)
    fill_b(encoder)
    name, layer = next(lora_layers(encoder.backbone))
    a, b = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
    expected = layer.get_base_layer().weight.double() + scale * (b @ a)
    assert torch.allclose(dict(all_tensors(encoder))[f"{name}.weight"].double(), expected, atol=1e-7)


def test_the_start_is_drawn_from_the_seed(tmp_path: Path) -> None:
    drawn = []
    for seed, noise in ((1, 10), (1, 20), (2, 10)):
        encoder = load_tiny(tmp_path)
        torch.manual_seed(noise)
        add_lora(encoder, Lora(rank=4), seed=seed)
        drawn.append(adapters(encoder))
    first, again, other = drawn
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first if ".lora_A." in name)
    assert all(not p.any() for name, p in first.items() if ".lora_B." in name)


def test_only_adapters_train_on_all_linears_of_the_layers(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path)
    add_lora(encoder, Lora(rank=4), seed=1)
    blocks = {
        "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "mlp": ("gate_proj", "up_proj", "down_proj"),
    }
    expected = {f"layers.{i}.{block}.{name}" for i in range(3) for block in blocks for name in blocks[block]}
    assert {name for name, _ in lora_layers(encoder.backbone)} == expected
    assert {name.partition(".lora_")[1] for name, _ in encoder.trainable()} == {".lora_"}
    assert len(encoder.trainable()) == 2 * len(expected)


def test_named_targets(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path)
    add_lora(encoder, Lora(rank=2, targets=("q_proj", "v_proj")), seed=1)
    assert {name.rpartition(".")[2] for name, _ in lora_layers(encoder.backbone)} == {"q_proj", "v_proj"}


def test_an_unknown_target_is_named(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path)
    with pytest.raises(UserError) as error:
        add_lora(encoder, Lora(targets=("query",)), seed=1)
    assert str(error.value) == (
        "lora.targets: no linear layer is named 'query'; the model has "
        "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )


def test_the_same_shape_trains_on(tmp_path: Path) -> None:
    """A second stage with the same adapters starts from where the first one ended."""
    encoder = load_tiny(tmp_path)
    add_lora(encoder, Lora(rank=4), seed=1)
    fill_b(encoder)
    before = adapters(encoder)
    add_lora(encoder, Lora(rank=4), seed=2)
    assert all(torch.equal(before[name], p) for name, p in adapters(encoder).items())
    assert not encoder.folded


@pytest.mark.parametrize("following", ["other adapters", "all weights"])
def test_another_tuning_folds_the_adapters_first(tmp_path: Path, following: str) -> None:
    encoder = load_tiny(tmp_path)
    add_lora(encoder, Lora(rank=4), seed=1)
    fill_b(encoder)
    vectors = encoder.encode(TEXTS)
    if following == "all weights":
        tune_all(encoder)
        assert not list(lora_layers(encoder.backbone))
        assert all(p.requires_grad for p in encoder.parameters())
    else:
        add_lora(encoder, Lora(rank=2), seed=1)
        assert {layer.r["default"] for _, layer in lora_layers(encoder.backbone)} == {2}
    assert encoder.folded
    assert np.abs(encoder.encode(TEXTS) - vectors).max() < 1e-6


def test_bfloat16_casts_the_weight_and_not_the_activation(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path, precision="bfloat16")
    add_lora(encoder, Lora(rank=4), seed=1)
    assert {p.dtype for _, p in encoder.trainable()} == {torch.float32}
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update((args[0].dtype, output.dtype))

    for _, layer in lora_layers(encoder.backbone):
        layer.lora_A["default"].register_forward_hook(note)
        layer.lora_B["default"].register_forward_hook(note)
        layer.register_forward_hook(note)
    encoder.encode(TEXTS)
    assert seen == {torch.bfloat16}


def test_all_weights_in_bfloat16_stay_float32(tmp_path: Path) -> None:
    """Full tuning keeps float32 weights; the products, and only they, are bfloat16."""
    encoder = load_tiny(tmp_path, precision="bfloat16")
    tune_all(encoder)
    assert {p.dtype for _, p in encoder.trainable()} == {torch.float32}
    seen: set[torch.dtype] = set()
    encoder.backbone.layers[0].mlp.up_proj.register_forward_hook(lambda *call: seen.add(call[2].dtype))
    encoder.encode(TEXTS)
    assert seen == {torch.bfloat16}


def test_gradient_of_128_bfloat16_chunks(tmp_path: Path) -> None:
    """Cosine to float32 at least 0.9999; adapters in bfloat16 are at least ten times further off."""
    exact = gradient_of_chunks(tmp_path, torch.float32, torch.float32)
    ours = gradient_of_chunks(tmp_path, torch.bfloat16, torch.float32)
    halved = gradient_of_chunks(tmp_path, torch.bfloat16, torch.bfloat16)
    distance, halved_distance = (
        1 - float(nn.functional.cosine_similarity(exact, g, dim=0)) for g in (ours, halved)
    )
    assert distance <= 1e-4
    assert halved_distance > 10 * distance


def gradient_of_chunks(folder: Path, base: torch.dtype, adapter: torch.dtype) -> Tensor:
    """The adapters' gradient, in float64, summed over 128 chunks."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.05}
    encoder = load_tiny(folder, precision="bfloat16", num_hidden_layers=2, **sizes)
    encoder.to(base)
    add_lora(encoder, Lora(rank=8), seed=3)
    fill_b(encoder, scale=0.05)
    for _, layer in lora_layers(encoder.backbone):
        layer.lora_A.to(adapter)
        layer.lora_B.to(adapter)
    generator = torch.Generator().manual_seed(0)
    for _ in range(128):
        ids = torch.randint(4, 399, (4, 16), generator=generator)
        vectors = nn.functional.normalize(encoder(TokenBatch.of(ids.tolist())), dim=1)
        target = torch.randn(vectors.shape, generator=generator) + 1
        (vectors * target).sum().backward()
    return torch.cat([p.grad.double().flatten() for _, p in encoder.trainable() if p.grad is not None])
