"""Texts are encoded on any process, and the global batch is what it was."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from contrastive import (
    OBJECTIVE,
    Gradients,
    Tuning,
    make_batch,
    relative_error,
    step_gradients,
    tiny_encoder,
    tiny_folder,
)
from hypothesis import example, given
from hypothesis import strategies as st
from processes import run_on
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, Gathered, TokenBatch
from embedtrain.data.rows import Row
from embedtrain.dist import current, mean_over_processes
from embedtrain.loss.objective import build_objective
from embedtrain.train.deal import EVEN, deal, deal_texts
from embedtrain.train.step import gather_batch, train_step
from tools.parity_cases import rich_rows, teach, words

PLAIN = 10**6
Texts = Sequence[tuple[list[int], int]]
"""Ids, and the first token that counts in the pool."""


def loads(lengths: Sequence[int], ranks: Sequence[int], world: int) -> np.ndarray:
    """Tokens of each process."""
    return np.bincount(np.array(ranks, dtype=np.int64), weights=np.array(lengths), minlength=world)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 8)), max_size=40), st.integers(1, 9))
@example([(1, 0), (1, 0), (4, 0), (5, 0)], 3)
def test_loads_differ_by_one_text_at_most(texts: list[tuple[int, int]], world: int) -> None:
    """Of those that have most, one has no text that could go without another having as much."""
    lengths, owners = [length for length, _ in texts], sorted(owner % world for _, owner in texts)
    ranks = deal(lengths, owners, world)
    assert len(ranks) == len(lengths)
    assert set(ranks) <= set(range(world))
    before, after = loads(lengths, owners, world), loads(lengths, ranks, world)
    held = [[n for n, owner in zip(lengths, ranks, strict=True) if owner == rank] for rank in range(world)]
    fullest = [min(held[rank], default=0) for rank in np.flatnonzero(after == after.max())]
    assert after.max() - after.min() <= max(fullest) or after.max() <= EVEN * after.mean()
    assert after.max() <= before.max()
    assert deal(lengths, owners, world) == ranks


def test_from_who_has_most_to_who_has_least() -> None:
    assert deal([9, 4, 4, 1], [0, 0, 0, 1], 2) == [0, 1, 1, 1]  # the longest that both have room for
    assert deal([6, 5], [0, 0], 2) == [0, 1]  # the shortest, if none fits
    assert deal([5, 4], [0, 1], 2) == [0, 1]
    assert deal([506, 5, 494], [0, 0, 1], 2) == [0, 1, 1]
    assert deal([505, 5, 500], [0, 0, 1], 2) == [0, 0, 1]  # even enough
    assert deal([3, 3, 3], [2, 2, 2], 4) == [0, 1, 2]
    assert sorted(deal([0, 0, 0, 0], [0, 0, 0, 0], 2)) == [0, 0, 1, 1]  # texts without tokens are work too
    assert deal([5, 1], [0, 0], 1) == [0, 0]
    assert deal([], [], 3) == []


@pytest.mark.parametrize(("pairs", "by_chance"), [(8, 0.31), (128, 0.07), (1024, 0.03)])
def test_shares_that_chance_makes_uneven_are_dealt_even(pairs: int, by_chance: float) -> None:
    """What the module says of 8 processes: how far the fullest is above the mean, and what is sent."""
    rng, own, dealt, moved = np.random.default_rng(0), [], [], []
    for _ in range(60 if pairs < 1024 else 10):
        drawn = 110 * np.exp(0.9 * rng.standard_normal(8 * 2 * pairs))
        lengths, owners = np.clip(drawn.round(), 1, 512).astype(np.int64), np.arange(8).repeat(2 * pairs)
        ranks = np.array(deal(lengths.tolist(), owners.tolist(), 8))
        for found, who in ((own, owners), (dealt, ranks)):
            tokens = loads(lengths.tolist(), who.tolist(), 8)
            found.append(tokens.max() / tokens.mean() - 1)
        moved.append(lengths[ranks != owners].sum() / lengths.sum())
    assert np.mean(own) == pytest.approx(by_chance, rel=0.2)
    assert np.mean(dealt) <= EVEN - 1
    assert np.mean(moved) < np.mean(own) / 3


# --- texts and vectors on several processes -----------------------------------------------------------------


def texts_of(rank: int, side: int, sizes: Sequence[int]) -> Texts:
    """One text of each size, like no other."""
    return [
        ([1000 * rank + 100 * side + 10 * i + j for j in range(size)], (rank + i) % 2)
        for i, size in enumerate(sizes)
    ]


def batch_of(texts: Texts) -> TokenBatch:
    found = TokenBatch.of([ids for ids, _ in texts])
    return TokenBatch(found.ids_P, found.lengths_T, torch.tensor([first for _, first in texts]).long())


def to_texts(batch: TokenBatch) -> Texts:
    ids = batch.ids_P.split(batch.lengths_T.tolist())
    return [(text.tolist(), first) for text, first in zip(ids, batch.first_T.tolist(), strict=True)]


def vectors_of(texts: Texts) -> Tensor:
    """What tells a text from all others: last id, length, first token in the pool."""
    found = [[float(ids[-1]) if ids else -1.0, len(ids), first] for ids, first in texts]
    return torch.tensor(found, dtype=torch.float64).reshape(-1, 3)


UNEVEN = {
    "uneven": [([2, 1], [30, 9, 9, 1, 4]), ([3, 0], [1, 2])],
    "none on one": [([], []), ([3, 1, 2], [7, 5, 5, 5])],
    "one text": [([4], []), ([], [])],
}
ON_FOUR = {"four": [([2], [9, 1]), ([], []), ([1, 1], [3]), ([5], [1, 30])]}


def deal_here(sizes: Sequence[tuple[list[int], list[int]]]) -> tuple[Texts, bool, list[np.ndarray]]:
    """This process's texts, whether their ids are int64, and gathered vectors and gradient.

    Each process weighs what it sees by its rank and one.
    """
    rank = current().rank
    dealt = deal_texts(*(batch_of(texts_of(rank, side, sizes[rank][side])) for side in (0, 1)))
    texts = to_texts(dealt.texts)
    vectors_TD = vectors_of(texts).requires_grad_()
    queries_AD, candidates_CD = dealt.gather(vectors_TD)
    ((rank + 1) * torch.cat([queries_AD, candidates_CD]).square().sum()).backward()
    assert vectors_TD.grad is not None
    found = [queries_AD.detach(), candidates_CD.detach(), vectors_TD.grad]
    return texts, dealt.texts.ids_P.dtype == torch.int64, [x.numpy() for x in found]


@pytest.mark.parametrize("case", [*UNEVEN, *(pytest.param(name, marks=pytest.mark.slow) for name in ON_FOUR)])
def test_vectors_come_back_to_their_rows(case: str) -> None:
    """Queries of all processes, then candidates; a vector's gradient sums what all make of it."""
    sizes = (UNEVEN | ON_FOUR)[case]
    world, results = len(sizes), run_on(len(sizes), deal_here, sizes)
    rows = [[text for rank in range(world) for text in texts_of(rank, s, sizes[rank][s])] for s in (0, 1)]
    for texts, is_int64, (queries_AD, candidates_CD, gradient_TD) in results:
        assert is_int64
        assert np.array_equal(queries_AD, vectors_of(rows[0]))
        assert np.array_equal(candidates_CD, vectors_of(rows[1]))
        assert np.array_equal(gradient_TD, sum(range(1, world + 1)) * 2 * vectors_of(texts))
    encoded = [text for texts, *_ in results for text in texts]
    assert sorted(encoded) == sorted(rows[0] + rows[1])
    tokens = [sum(len(ids) for ids, _ in texts) for texts, *_ in results]
    assert max(tokens) - min(tokens) <= max(len(ids) for ids, _ in encoded)


def test_a_single_process_keeps_all() -> None:
    texts, is_int64, (queries_AD, candidates_CD, _) = deal_here([([2, 1], [30, 9])])
    assert texts == [*texts_of(0, 0, [2, 1]), *texts_of(0, 1, [30, 9])]
    assert is_int64
    assert (len(queries_AD), len(candidates_CD)) == (2, 2)


# --- a step -------------------------------------------------------------------------------------------------


def lopsided_rows() -> list[Row]:
    """Long texts on the first process, short ones on the second."""
    return [Row(words(i, 30), (words(50 + i, 40),), (words(90 + i, 35),)) for i in range(4)] + [
        Row(words(10 + i, 1), (words(60 + i, 2),), (words(99 + i, 3),)) for i in range(4)
    ]


def step_here(
    folder: str, tuning: Tuning, rows: list[Row], chunk_tokens: int, keep_tokens: int, dropout: float
) -> tuple[dict[str, Any], int, Gradients]:
    """What the objective saw, the tokens that were encoded here, and the global gradient."""
    here, seen, tokens = current(), {}, []
    encoder = tiny_encoder(tuning, dropout=dropout, folder=folder)
    encoder.register_forward_pre_hook(lambda _, batch: tokens.append(batch[0].num_tokens))

    def gather(batch: ContrastiveBatch, queries_AD: Tensor, candidates_CD: Tensor) -> Gathered:
        g = gather_batch(batch, queries_AD, candidates_CD)
        seen.update({field.name: getattr(g, field.name) for field in fields(g)})
        return g

    batch = make_batch(encoder, rows, here.rank, here.world, teach)
    _, gradients = step_gradients(
        encoder, batch, chunk_tokens=chunk_tokens, keep_tokens=keep_tokens, gather=gather
    )
    plain = {name: x.detach().numpy() for name, x in seen.items() if isinstance(x, Tensor)}
    return plain, sum(tokens), gradients


@pytest.mark.parametrize("rows", [rich_rows(), lopsided_rows()], ids=["rich", "lopsided"])
def test_objective_sees_the_same_batch(rows: list[Row]) -> None:
    """On two processes as on one but for the local rows; encoded tokens are shared evenly."""
    whole, tokens, _ = step_here(tiny_folder(), "lora", rows, PLAIN, 0, 0.0)
    shares = run_on(2, step_here, tiny_folder(), "lora", rows, PLAIN, 0, 0.0)
    for found, *_ in shares:
        for name in found.keys() - {"local_B"}:
            np.testing.assert_allclose(found[name], whole[name], rtol=1e-12, atol=1e-14, err_msg=name)
    assert np.array_equal(np.concatenate([found["local_B"] for found, *_ in shares]), whole["local_B"])
    first, second = (count for _, count, _ in shares)
    assert first + second == tokens
    assert abs(first - second) < 0.06 * tokens


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_dropout_of_dealt_texts_is_replayed(tuning: Tuning) -> None:
    """Recomputed chunks give the gradient of kept ones, on each number of processes."""
    folder = tiny_folder(0.3 if tuning == "full" else 0.0)  # of full tuning, the model's own attention drops
    arguments = (folder, tuning, rich_rows(), 64)
    [_, _, kept], _ = run_on(2, step_here, *arguments, PLAIN, 0.3)
    [_, _, again], _ = run_on(2, step_here, *arguments, 0, 0.3)
    [_, _, other], _ = run_on(2, step_here, folder, tuning, rich_rows(), 100, 0, 0.3)
    assert relative_error(again, kept) < 1e-12
    assert relative_error(other, kept) > 0.01  # other chunks, other dropout: this can fail


def loss_here(folder: str, rows: list[Row]) -> float:
    """The loss of a step in which this process may own no row."""
    here, encoder = current(), tiny_encoder("lora", folder=folder)
    batch = make_batch(encoder, rows, here.rank, here.world)
    figures = train_step(encoder, batch, build_objective(OBJECTIVE), chunk_tokens=64)
    return float(mean_over_processes(figures["loss"]))


def test_who_owns_no_row_encodes_too() -> None:
    rows, folder = rich_rows()[6:], tiny_folder()
    assert run_on(2, loss_here, folder, rows) == [pytest.approx(loss_here(folder, rows), rel=1e-12)] * 2
