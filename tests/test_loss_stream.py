"""Chunks of local queries give the sums and gradients of all at once."""

import pytest
import torch
from contrast_settings import SIGMOIDS, UNTIED, infonces
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from loss_reference import random_gathered, with_gradient
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import SAME_TEXT, AboveMargin, Focal, PairMixing
from embedtrain.config.terms import InfoNCE, Learned, LearnedTemperature, Sigmoid
from embedtrain.loss import stream
from embedtrain.loss.infonce import infonce
from embedtrain.loss.sigmoid import sigmoid

TERMS = {"infonce": infonce, "sigmoid": sigmoid}
LEARNED = {"temperature": LearnedTemperature(), "bias": Learned(initial=0.0, minimum=-20.0, maximum=5.0)}
FULL = InfoNCE(
    kind="infonce",
    query_query=True,
    document_document=True,
    symmetric=True,
    masks=(SAME_TEXT, AboveMargin(kind="above_margin"), AboveMargin(kind="above_margin", judge="teacher")),
    focal=Focal(detach=False),
    hardness=5.0,
    mixing=(PairMixing(kind="pair"), PairMixing(kind="pair", shared=True)),
)


def evaluate(g: Gathered, term: InfoNCE | Sigmoid, chunk: int | None) -> list[Tensor]:
    """Sum, count and gradients, those of learned numbers last; `chunk` scores at a time, or all at once."""
    leaves = with_gradient(g)
    learned = {
        name: torch.tensor(value, dtype=g.queries_AD.dtype, requires_grad=True)
        for name, value in (("temperature", 0.1), ("bias", -2.0))
        if isinstance(getattr(term, name, None), Learned)
    }
    with pytest.MonkeyPatch.context() as patch:
        if chunk is not None:
            patch.setattr(stream, "STREAM_ABOVE", 0)
            patch.setattr(stream, "CHUNK", chunk)
        total, count = TERMS[term.kind](leaves, term, learned)
    assert ("_Streamed" in type(total.grad_fn).__name__) == (chunk is not None)
    (3 * total).backward()
    wanted = (leaves.queries_AD, leaves.candidates_CD, *learned.values())
    return [total.detach(), count, *(leaf.grad for leaf in wanted if leaf.grad is not None)]


@settings(max_examples=150, deadline=None)
@given(UNTIED, infonces() | SIGMOIDS, st.booleans(), st.sampled_from([1, 40, 1000]))
def test_streamed_is_direct(g: Gathered, term: InfoNCE | Sigmoid, learn: bool, chunk: int) -> None:
    assume(len(g.local_B))
    if learn:
        names = LEARNED.keys() & type(term).model_fields.keys()
        term = term.model_copy(update={name: LEARNED[name] for name in names})
    direct, streamed = evaluate(g, term, None), evaluate(g, term, chunk)
    assert len(streamed) == len(direct) >= 4
    for x, y in zip(streamed, direct, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_float32_to_rounding(dtype: torch.dtype) -> None:
    """Everything at once: blocks, masks, focal, hardness, own and shared mixing, a learned temperature."""
    g = random_gathered(3, num_queries=40, dim=16, local="all", num_keys=100, dtype=dtype)
    term = FULL.model_copy(update={"temperature": LearnedTemperature()})
    direct, streamed = evaluate(g, term, None), evaluate(g, term, 2000)
    assert len(direct) == 5
    assert direct[0].dtype == streamed[0].dtype == torch.float32
    for x, y in zip(streamed, direct, strict=True):
        assert float((x - y).double().norm() / y.double().norm()) < (1e-5 if dtype == torch.float32 else 1e-2)
        assert float(y.double().norm()) > 0


def test_streaming_starts_above_its_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    g = with_gradient(random_gathered(3, num_queries=4, max_positives=1, local="all"))
    term = InfoNCE(kind="infonce")
    for spare, name in ((0, "DivBackward0"), (1, "_StreamedBackward")):
        scores = len(g.local_B) * len(g.owner_C)
        monkeypatch.setattr(stream, "STREAM_ABOVE", scores - spare)
        streams = "_Streamed" in type(infonce(g, term, {})[0].grad_fn).__name__
        assert streams == ("_Streamed" in name)


def test_a_second_backward_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STREAM_ABOVE", 0)
    total, _ = infonce(with_gradient(random_gathered(3, local="all")), FULL, {})
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a streamed term is differentiated once"):
        total.backward()


def test_without_gradient_nothing_is_differentiated() -> None:
    g = random_gathered(3, num_queries=4, local="all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "STREAM_ABOVE", 0)
        patch.setattr(stream, "CHUNK", 1)
        total, count = infonce(g, FULL, {})
    expected, expected_count = infonce(g, FULL, {})
    assert not total.requires_grad
    torch.testing.assert_close((total, count), (expected, expected_count))
