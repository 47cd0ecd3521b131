"""The proof of packing: a model that lets texts see each other is given padded ones, and says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packing import CASES, MIXED, error, folder_of, load_tiny, texts_of
from tiny_models import DECODERS, ENCODERS, save_tiny
from torch import nn
from transformers import AutoModel

from embedtrain.config.errors import UserError
from embedtrain.model import load
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.model.packed import PACKED
from embedtrain.model.proof_packing import packing_fault


def test_why_texts_are_padded() -> None:
    found = {kind: load_tiny(folder_of("llama"), attention_kernel=kind).padded for kind in ("sdpa", "eager")}
    assert found == {
        "sdpa": "its attention is transformers' own 'sdpa'",
        "eager": "its attention is transformers' own 'eager'",
    }
    assert load_tiny(folder_of("llama")).padded is None


def change_on_load(monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], None]) -> None:
    """Each backbone is changed right after its weights are read."""
    read = load.read_backbone

    def read_and_change(*args: Any) -> Any:
        backbone = read(*args)
        change(backbone)
        return backbone

    monkeypatch.setattr(load, "read_backbone", read_and_change)


def change_arguments(module: nn.Module, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    module.register_forward_pre_hook(lambda _, args, kwargs: (args, change(kwargs)), with_kwargs=True)


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda kwargs: {key: value for key, value in kwargs.items() if key != name}


def assert_falls_back(
    folder: Path, said: str, capsys: pytest.CaptureFixture[str], *, attention: str = "bidirectional"
) -> Encoder:
    """One line on stderr, and padded texts with the vectors that they should have."""
    capsys.readouterr()
    encoder = load_tiny(folder, attention=attention)
    assert capsys.readouterr().err == f"{folder}: texts are padded, not packed: {said}\n"
    assert encoder.padded == "its attention is transformers' own 'sdpa'"
    batch = texts_of(MIXED)
    with torch.no_grad():
        alone = torch.cat([encoder(batch.take([row])) for row in range(len(batch))])
        assert error(encoder(batch), alone) < 1e-5
    return encoder


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_a_layer_that_sees_other_texts_is_noticed(
    family: str,
    attention: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One layer whose attention is not told where texts stand."""

    def spoil(backbone: nn.Module) -> None:
        layer = layers_of(backbone)[1]
        name = next(n for n in ("self_attn", "attention", "attn") if hasattr(layer, n))
        change_arguments(layer.get_submodule(name), without("spans"))

    change_on_load(monkeypatch, spoil)
    layer = type(layers_of(AutoModel.from_pretrained(folder_of(family)))[1]).__name__
    said = f"in layer 1 ({layer}) texts see each other"
    assert_falls_back(folder_of(family), said, capsys, attention=attention)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_model_that_ignores_positions_is_noticed(
    family: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Positions that are learned run on from text to text; no layer can tell."""
    faults: list[str | None] = []

    def spoil(backbone: Any) -> None:
        change_arguments(backbone.embeddings, without("position_ids"))
        backbone.set_attn_implementation(PACKED)
        faults.append(packing_fault(backbone, "bidirectional"))
        backbone.set_attn_implementation("sdpa")

    change_on_load(monkeypatch, spoil)
    load_tiny(folder_of(family))
    [fault] = faults
    assert fault is not None
    assert fault.startswith("its vectors differ by ")
    assert 0.01 < float(fault.split()[4]) < 10
    assert fault.endswith(" from those of each text alone")
    assert_falls_back(folder_of(family), fault, capsys)


def test_a_layer_that_changes_its_mind_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bidirectional over padded texts, which the first proof sees, and causal over packed ones."""

    def turn(kwargs: dict[str, Any]) -> dict[str, Any]:
        return kwargs | {"is_causal": True} if "spans" in kwargs else kwargs

    change_on_load(monkeypatch, lambda backbone: change_arguments(layers_of(backbone)[2].self_attn, turn))
    said = "layer 2 (LlamaDecoderLayer) is then not bidirectional"
    assert_falls_back(folder_of("llama"), said, capsys)


def test_a_model_that_takes_no_positions_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def narrow(backbone: Any) -> None:
        forward = backbone.forward
        backbone.forward = lambda input_ids, attention_mask=None: forward(input_ids, attention_mask)

    change_on_load(monkeypatch, narrow)
    said = "LlamaModel takes no positions of tokens, or hands nothing on to its attention"
    assert_falls_back(folder_of("llama"), said, capsys)


SIZES = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
OWN_ATTENTION: dict[str, tuple[str, dict[str, object]]] = {
    "gpt_oss": ("causal", SIZES | EXPERTS),  # sinks
    "gemma2": ("causal", SIZES | {"query_pre_attn_scalar": 8}),  # a cap on the scores
    "mpnet": ("bidirectional", {}),  # code of its own, so neither sdpa nor packing
    "deberta-v2": ("bidirectional", {}),
    "megatron-bert": ("bidirectional", {}),
    "esm": ("bidirectional", {}),  # sdpa, but not a pack
}


@pytest.mark.parametrize("family", OWN_ATTENTION)
def test_an_attention_of_its_own_is_never_left_out(family: str, tmp_path: Path) -> None:
    """Refused with words, or encoded as transformers' own code, `eager`, does."""
    attention, sizes = OWN_ATTENTION[family]
    folder = save_tiny(family, tmp_path, **sizes)
    expected = load_tiny(folder, attention=attention, attention_kernel="eager")
    try:
        found = load_tiny(folder, attention=attention)
    except UserError:
        return
    batch = texts_of((9, 1, 23, 9, 2))
    with torch.no_grad():
        assert error(found(batch), expected(batch)) < 1e-5


def test_the_proof_of_packing_leaves_no_trace() -> None:
    """Mode, gradients, hooks and random state are as before; it runs dry of dropout."""
    encoder = load_tiny(folder_of("llama"))
    encoder.backbone.train()
    before = torch.get_rng_state()
    assert packing_fault(encoder.backbone, "bidirectional") is None
    assert packing_fault(encoder.backbone, "causal") == "layer 0 (LlamaDecoderLayer) is then not causal"
    assert encoder.backbone.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in encoder.parameters())
    assert not any(layer._forward_hooks for layer in layers_of(encoder.backbone))


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [family for family in DECODERS + ENCODERS if family != "gemma3_text"])
def test_transformers_own_packing_leaks(family: str, kind: str) -> None:
    """Positions that begin anew part no texts where attention is bidirectional: should this test fail one
    day, a newer transformers has mended it, and embedtrain.model.packed may be simpler."""
    encoder = load_tiny(folder_of(family), attention_kernel=kind)
    batch = texts_of((9, 7))
    places = batch.places_P + (2 if family == "xlm-roberta" else 0)
    with torch.no_grad():
        output = encoder.backbone(input_ids=batch.ids_P[None], position_ids=places[None])
        alone = encoder.backbone(input_ids=batch.take([1]).ids_P[None])
    assert error(output.last_hidden_state[0, 9:], alone.last_hidden_state[0]) > 0.01
