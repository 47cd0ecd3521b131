"""One step: the gradient cache gives the gradient of the plain path, dropout and all."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from contrastive import (
    OBJECTIVE,
    Gradients,
    Tuning,
    add_learned,
    bound,
    make_batch,
    mean_count,
    ragged_rows,
    relative_error,
    step_gradients,
    tiny_encoder,
)
from token_ids import ids_of
from torch import Tensor

import embedtrain.loss.stream as streaming
from embedtrain.batch import ContrastiveBatch, Gathered, join
from embedtrain.config.errors import UserError
from embedtrain.loss.objective import ObjectiveFunction, build_objective
from embedtrain.model.encoder import Encoder
from embedtrain.train.step import gather_batch, train_step
from tools.parity_cases import OBJECTIVES, rich_rows, teach

PLAIN = 10**6
TUNINGS: tuple[Tuning, ...] = ("lora", "full")
DTYPES = (torch.float64, torch.float32)


def num_chunks(batch: ContrastiveBatch, chunk_tokens: int) -> int:
    return len(list(join(batch.queries, batch.documents).chunks(chunk_tokens)))


@cache
def still_encoder(tuning: Tuning, dtype: torch.dtype) -> Encoder:
    return tiny_encoder(tuning, dtype=dtype)


@cache
def dropping_encoder(tuning: Tuning, dtype: torch.dtype) -> Encoder:
    encoder = tiny_encoder(tuning, dropout=0.3, dtype=dtype)
    texts = make_batch(encoder, rich_rows()).documents.take([0, 1])
    with torch.no_grad():
        assert not torch.allclose(encoder(texts), encoder(texts), rtol=0.01)  # dropout is on
    return encoder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_cached_is_plain(name: str, tuning: Tuning, dtype: torch.dtype) -> None:
    encoder, objective = still_encoder(tuning, dtype), build_objective(OBJECTIVES[name])
    add_learned(encoder, OBJECTIVES[name], teach)
    batch = make_batch(encoder, rich_rows(), teacher=teach)
    assert num_chunks(batch, PLAIN) == 1
    loss, gradients = step_gradients(encoder, batch, chunk_tokens=PLAIN, objective=objective)
    for chunk_tokens, at_least in ((64, 6), (150, 3)) if name != "everything" else ((1, 25), (64, 6)):
        assert num_chunks(batch, chunk_tokens) >= at_least
        cached_loss, cached = step_gradients(encoder, batch, chunk_tokens=chunk_tokens, objective=objective)
        assert cached_loss == pytest.approx(loss, rel=bound(dtype))
        assert relative_error(cached, gradients) < bound(dtype)


def kept_gradients(
    encoder: Encoder, batch: ContrastiveBatch, chunk_tokens: int, objective: ObjectiveFunction
) -> Gradients:
    """The direct gradient with the same dropout: the same chunks in the same order, all graphs kept."""
    encoder.zero_grad()
    torch.manual_seed(13)
    texts = join(batch.queries, batch.documents)
    vectors: list[Tensor] = [torch.empty(0)] * len(texts)
    for rows, chunk in texts.chunks(chunk_tokens):
        for row, vector in zip(rows.tolist(), encoder(chunk), strict=True):
            vectors[row] = vector
    stacked, split = torch.stack(vectors), len(batch.queries)
    gathered = gather_batch(batch, stacked[:split], stacked[split:])
    objective(gathered, mean_count, dict(encoder.learned.items()))[0].backward()
    return {name: p.grad.numpy().copy() for name, p in encoder.trainable() if p.grad is not None}


def test_kept_graphs_are_not_encoded_again() -> None:
    encoder = tiny_encoder("lora")
    batch = make_batch(encoder, ragged_rows())
    calls: list[bool] = []
    encoder.backbone.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    chunks = num_chunks(batch, 64)
    for keep_tokens, kept in ((0, 0), (150, 3), (PLAIN, chunks)):
        calls.clear()
        step_gradients(encoder, batch, chunk_tokens=64, keep_tokens=keep_tokens)
        assert calls[:chunks].count(True) == kept
        assert len(calls) == chunks + (chunks - kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_cached_is_direct_with_dropout(name: str, tuning: Tuning, dtype: torch.dtype) -> None:
    encoder, objective = dropping_encoder(tuning, dtype), build_objective(OBJECTIVES[name])
    add_learned(encoder, OBJECTIVES[name], teach)
    batch = make_batch(encoder, rich_rows(), teacher=teach)
    assert num_chunks(batch, 64) >= 6
    expected = kept_gradients(encoder, batch, 64, objective)
    for keep_tokens in (0, 150) if name != "everything" else (0, 50, 150, PLAIN):
        _, cached = step_gradients(
            encoder, batch, chunk_tokens=64, keep_tokens=keep_tokens, objective=objective
        )
        assert relative_error(cached, expected) < bound(dtype)
    other = kept_gradients(encoder, batch, 100, objective)  # other chunks, other dropout: this can fail
    assert relative_error(cached, other) > 0.01


STREAMED = [n for n, o in OBJECTIVES.items() if {"infonce", "sigmoid"} & {term.kind for term in o.terms}]


@pytest.mark.parametrize("name", STREAMED)
def test_streamed_is_direct(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terms over a few queries at a time, in a cached step."""
    encoder, objective = still_encoder("lora", torch.float64), build_objective(OBJECTIVES[name])
    add_learned(encoder, OBJECTIVES[name], teach)
    batch = make_batch(encoder, rich_rows(), teacher=teach)
    loss, gradients = step_gradients(encoder, batch, chunk_tokens=PLAIN, objective=objective)
    calls: list[int] = []

    def differentiate(term: streaming.Direct, g: Gathered, *rest: Any) -> Any:
        calls.append(len(g.local_B))
        return direct(term, g, *rest)

    direct = streaming._differentiate
    monkeypatch.setattr(streaming, "_differentiate", differentiate)
    monkeypatch.setattr(streaming, "STREAM_ABOVE", 0)
    monkeypatch.setattr(streaming, "CHUNK", 80)
    streamed_loss, streamed = step_gradients(encoder, batch, chunk_tokens=64, objective=objective)
    assert len(calls) >= 2
    assert max(calls) <= 4 < len(batch.queries)
    assert streamed_loss == pytest.approx(loss, rel=1e-12)
    assert relative_error(streamed, gradients) < 1e-12


def test_same_step_twice() -> None:
    """Bit for bit, dropout and all."""
    encoder = tiny_encoder("lora", dropout=0.3, dtype=torch.float32)
    batch = make_batch(encoder, ragged_rows())
    (loss, gradients), (again, gradients_again) = (
        step_gradients(encoder, batch, chunk_tokens=64) for _ in range(2)
    )
    assert again == loss
    assert all(np.array_equal(gradients_again[name], gradients[name]) for name in gradients)


@pytest.mark.slow
def test_two_threads_are_one() -> None:
    """To rounding: on shapes this small the product of matrices sums in another order on two threads."""
    encoder = tiny_encoder("lora", dropout=0.3, dtype=torch.float32)
    batch = make_batch(encoder, ragged_rows())
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(step_gradients(encoder, batch, chunk_tokens=64))
    torch.set_num_threads(before)
    (loss, gradients), (loss_of_two, gradients_of_two) = results
    assert loss_of_two == pytest.approx(loss, rel=1e-6)
    assert relative_error(gradients_of_two, gradients) < 1e-5


def test_order_of_candidates_does_not_matter() -> None:
    encoder = tiny_encoder("lora")
    batch = make_batch(encoder, ragged_rows())
    order = torch.randperm(len(batch.documents), generator=torch.Generator().manual_seed(2))
    shuffled = replace(
        batch,
        documents=batch.documents.take(order),
        owner_C=batch.owner_C[order],
        is_positive_C=batch.is_positive_C[order],
        document_key_C=batch.document_key_C[order],
    )
    loss, gradients = step_gradients(encoder, batch, chunk_tokens=64)
    other_loss, other = step_gradients(encoder, shuffled, chunk_tokens=64)
    assert other_loss == pytest.approx(loss, rel=1e-12)
    assert relative_error(other, gradients) < 1e-12


def test_gradients_add_up() -> None:
    """A step adds to what the parameters hold: the loop decides when to start anew."""
    encoder = tiny_encoder("lora")
    batch = make_batch(encoder, ragged_rows())
    _, once = step_gradients(encoder, batch, chunk_tokens=64)
    train_step(encoder, batch, build_objective(OBJECTIVE), chunk_tokens=64)
    twice = {name: p.grad.numpy() / 2 for name, p in encoder.trainable() if p.grad is not None}
    assert relative_error(twice, once) < 1e-12


def test_vectors_that_are_not_numbers_are_refused() -> None:
    encoder = tiny_encoder("lora")
    batch = make_batch(encoder, ragged_rows())
    last = ids_of(batch.queries)[2][-1]
    with torch.no_grad():
        encoder.backbone.get_input_embeddings().weight[last] = torch.nan
    with pytest.raises(UserError, match=r"source 'faq', term infonce: \d of 7 query vectors hold NaN"):
        step_gradients(encoder, batch, chunk_tokens=64)


def test_a_gather_that_loses_the_graph_is_refused() -> None:
    encoder = tiny_encoder("lora")
    batch = make_batch(encoder, ragged_rows())

    def detached(batch: ContrastiveBatch, queries_AD: Tensor, candidates_CD: Tensor) -> Gathered:
        leaf_AD, leaf_CD = (v.detach().requires_grad_() for v in (queries_AD, candidates_CD))
        return gather_batch(batch, leaf_AD, leaf_CD)

    with pytest.raises(ValueError, match="the loss does not depend on this process's vectors"):
        step_gradients(encoder, batch, chunk_tokens=64, gather=detached)
