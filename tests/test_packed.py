"""Texts end to end are encoded as each alone: every family, every pooling, vectors and gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contrastive import Tuning, bound, make_batch, make_trainable, ragged_rows, relative_error, step_gradients
from packing import (
    CASES,
    EAGER,
    MIXED,
    SDPA,
    assert_same,
    error,
    folder_of,
    kernel,
    load_tiny,
    one_by_one,
    packed,
    padded,
    texts_of,
)
from tiny_models import DECODERS, ENCODERS, TEXTS, WINDOW, save_tiny
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.modernbert import modeling_modernbert

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import tune_all
from embedtrain.model.pooling import POOLINGS

TUNINGS: tuple[Tuning, ...] = ("lora", "full")
SHAPES = {
    "mixed": MIXED,
    "one length": (6, 6, 6),
    "one token each": (1, 1, 1, 1),
    "alone": (3 * WINDOW,),
    "alone, one token": (1,),
    "longest last": (0, 3, 5, 3 * WINDOW),
    "only empty ones": (0, 0),
    "no text": (),
}


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_packed_is_padded_is_one_by_one(family: str, attention: str, tuning: Tuning) -> None:
    """All poolings, with and without an instruction that is not pooled."""
    encoder = load_tiny(folder_of(family), attention=attention)
    make_trainable(encoder, tuning)
    for pooling in POOLINGS:
        encoder.spec = replace(encoder.spec, pooling=pooling)
        for firsts in (False, True):
            assert_same(encoder, texts_of(MIXED, firsts=firsts), (SDPA, EAGER, one_by_one), 1e-5)


@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_in_float64(
    family: str,
    attention: str,
    tuning: Tuning,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To 1e-12, once what transformers rounds to float32 on the way is not rounded; eager's softmax is."""
    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", apply_rotary_pos_emb)
    encoder = load_tiny(folder_of(family), attention=attention)
    exact_norms(encoder)
    make_trainable(encoder, tuning)
    assert_same(encoder.double(), texts_of(MIXED, firsts=True), (SDPA, one_by_one), 1e-12)


def exact_norms(encoder: Encoder) -> None:
    """RMS norms that stay in float64."""
    for name, module in list(encoder.backbone.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):
            values = vars(module)
            exact = nn.RMSNorm(len(module.weight), eps=values.get("eps") or values["variance_epsilon"])
            exact.weight = nn.Parameter(module.weight + ("Gemma" in type(module).__name__))
            encoder.backbone.set_submodule(name, exact)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_every_shape_of_a_pack(family: str, attention: str, shape: str) -> None:
    encoder = load_tiny(folder_of(family), attention=attention)
    make_trainable(encoder, "full")
    assert_same(encoder, texts_of(SHAPES[shape]), (SDPA, EAGER, one_by_one), 1e-5)


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_fewer_heads_of_keys_than_of_queries(tmp_path: Path, num_heads: int) -> None:
    encoder = load_tiny(save_tiny("llama", tmp_path, num_key_value_heads=num_heads))
    assert encoder.backbone.layers[0].self_attn.k_proj.out_features == 8 * num_heads
    make_trainable(encoder, "full")
    assert_same(encoder, texts_of(MIXED), (SDPA, EAGER, one_by_one), 1e-5)


@pytest.mark.parametrize("family", ["mistral", "gemma3_text", "modernbert"])
def test_windows_are_shorter_than_the_longest_text(family: str) -> None:
    """The premise: the window matters, so what is equal above is equal under a window."""
    batch = texts_of(SHAPES["alone"])
    attention = "bidirectional" if family == "modernbert" else "causal"
    narrow, wide = (load_tiny(folder_of(family), attention=attention) for _ in range(2))
    wide.backbone.config.sliding_window = 1000  # Mistral reads it at each call, the others keep it
    for layer in layers_of(wide.backbone):
        attended = getattr(layer, "attn", None) or layer.self_attn
        attended.sliding_window = 1000
    with torch.no_grad():
        assert error(packed(narrow, batch), packed(wide, batch)) > 1e-3


@pytest.mark.parametrize(("family", "attention"), CASES)
def test_texts_never_see_each_other(family: str, attention: str) -> None:
    """Another text changed: not a bit of the others moves, and no gradient reaches them."""
    encoder, batch = load_tiny(folder_of(family), attention=attention), texts_of(MIXED)
    others = texts_of(MIXED, seed=1)
    embedded: list[Tensor] = []
    encoder.backbone.get_input_embeddings().register_forward_hook(
        lambda module, args, output: embedded.append(output.detach().requires_grad_()) or embedded[-1]
    )
    before = encoder(batch)
    text_P = torch.arange(len(batch)).repeat_interleave(batch.lengths_T)
    for row in (0, 3, 4, 8, 11):
        ids_P = torch.where(text_P == row, others.ids_P, batch.ids_P)
        moved = (encoder(replace(batch, ids_P=ids_P)) != before).any(dim=1)
        assert moved.nonzero().flatten().tolist() == [row]
        [gradient] = torch.autograd.grad(before[row].square().sum(), embedded[0], retain_graph=True)
        assert text_P[gradient[0].any(dim=1)].unique().tolist() == [row]


@pytest.mark.parametrize("family", ENCODERS)
def test_dropout_of_attention_is_packed_and_replayed(tmp_path: Path, family: str) -> None:
    """On, the same again from the same seed, replayed by the gradient cache, and off in eval."""
    name = "attention_dropout" if family == "modernbert" else "attention_probs_dropout_prob"
    encoder = load_tiny(save_tiny(family, tmp_path, **{name: 0.1}))
    make_trainable(encoder, "lora")
    batch = make_batch(encoder, ragged_rows())
    still = encoder.eval()(batch.documents)
    assert torch.equal(encoder(batch.documents), still)
    assert error(still, padded(encoder, batch.documents, "sdpa")) < 1e-5
    encoder.train()
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(packed(encoder, batch.documents))
    assert torch.equal(drawn[0], drawn[1])
    assert error(drawn[0], drawn[2]) > 0.01
    assert error(drawn[0], still) > 0.01
    (loss, direct), (cached_loss, cached) = (
        step_gradients(encoder, batch, chunk_tokens=64, keep_tokens=keep) for keep in (10**6, 0)
    )
    assert cached_loss == pytest.approx(loss, rel=1e-6)
    assert relative_error(cached, direct) < bound(torch.float32)
    _, others = step_gradients(encoder, batch, chunk_tokens=100)  # other chunks, other dropout: it can fail
    assert relative_error(others, direct) > 0.01


@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_low_precision(family: str) -> None:
    """bfloat16 weights, and bfloat16 products over float32 weights."""
    whole = load_tiny(folder_of(family))
    settings = (Base(model=str(folder_of(family))), EncoderConfig(), TextFormat())
    half = load_encoder(*settings, precision="bfloat16")
    whole.load_state_dict(half.state_dict())
    rows = [row for row, length in enumerate(MIXED) if length]
    batch = texts_of(MIXED, firsts=True).take(rows)
    expected = one_by_one(whole, batch)
    for mixed in (False, True):
        if mixed:
            tune_all(half)
        found = packed(half, batch)
        assert half.backbone.dtype == (torch.float32 if mixed else torch.bfloat16)
        assert found.dtype == torch.float32
        assert bool((nn.functional.cosine_similarity(found, expected) > 0.999).all())


def test_texts_of_a_real_tokenizer_are_packed() -> None:
    """From strings, through `encode`."""
    encoder = load_tiny(folder_of("llama"))
    found = encoder.encode(TEXTS, tokens_per_batch=10**6)
    with kernel(encoder, "eager"):
        expected = encoder.encode(TEXTS)
    assert abs(found - expected).max() < 1e-5
