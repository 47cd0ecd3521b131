"""The spread-out regulariser against plain Python loops."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_laws import (
    assert_gradient,
    assert_low_precision_is_summed_in_float32,
    assert_order_is_free,
    assert_whole_everywhere,
    evaluate,
)
from loss_reference import random_gathered

from embedtrain.batch import Gathered
from embedtrain.config.terms import Spread
from embedtrain.loss import spread as module
from embedtrain.loss.spread import spread

TERM = partial(Spread, kind="spread")


def slow_side(vectors: list[list[float]], keys: list[int], indices: list[int]) -> tuple[float, int]:
    """Mean of squared cosines over ordered pairs of different texts, each as its least index has it."""
    chosen: dict[int, int] = {}
    for place, key in enumerate(keys):
        if key not in chosen or indices[place] < indices[chosen[key]]:
            chosen[key] = place
    squares = []
    for i in chosen.values():
        for j in chosen.values():
            if i != j:
                dot = math.fsum(x * y for x, y in zip(vectors[i], vectors[j], strict=True))
                norms = math.sqrt(math.fsum(x * x for x in vectors[i]) * math.fsum(x * x for x in vectors[j]))
                squares.append((dot / norms) ** 2)
    return (math.fsum(squares) / len(squares), 1) if squares else (0.0, 0)


def slow_spread(g: Gathered, term: Spread) -> tuple[float, int]:
    queries = slow_side(g.queries_AD.tolist(), g.query_key_A.tolist(), g.query_index_A.tolist())
    documents = slow_side(g.candidates_CD.tolist(), g.document_key_C.tolist(), g.owner_C.tolist())
    sides = [queries] * term.queries + [documents] * term.documents
    return math.fsum(value for value, _ in sides), max(count for _, count in sides)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Gathered, Spread]:
    """Few texts or many, some of them equal; one side, the other, or both."""
    g = random_gathered(
        draw(st.integers(0, 10_000)),
        ties=draw(st.booleans()),
        num_queries=draw(st.integers(1, 9)),
        num_keys=draw(st.sampled_from([1, 3, 40])),
    )
    queries = draw(st.booleans())
    return g, TERM(queries=queries, documents=not queries or draw(st.booleans()))


@pytest.mark.parametrize("direct", [0, 4096])
@settings(max_examples=200, deadline=None)
@given(cases())
def test_spread_is_its_definition(direct: int, case: tuple[Gathered, Spread]) -> None:
    """Over all pairs, and by the second moment."""
    g, term = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DIRECT", direct)
        total, count, _ = evaluate(spread, g, term)
    slow_total, slow_count = slow_spread(g, term)
    assert total == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert count == slow_count


@settings(max_examples=60, deadline=None)
@given(cases())
def test_laws(case: tuple[Gathered, Spread]) -> None:
    g, term = case
    assert_whole_everywhere(spread, g, term)
    assert_low_precision_is_summed_in_float32(spread, g, term)
    apart = replace(g, document_key_C=torch.arange(len(g.owner_C)))  # which of equal texts counts is settled
    assert_order_is_free(spread, apart, term)


@pytest.mark.parametrize("direct", [0, 4096])
def test_gradient(direct: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECT", direct)
    assert_gradient(spread, random_gathered(5, num_queries=5), TERM())


def test_many_texts_of_random_directions() -> None:
    """Beyond DIRECT: the mean of squared cosines of random directions in D dims is 1 / D."""
    count, dim = module.DIRECT + 1, 64
    x_ND = torch.randn(count, dim, generator=torch.Generator().manual_seed(1))
    many = module.second_moment(torch.nn.functional.normalize(x_ND, dim=1))
    exact = (
        torch.nn.functional.normalize(x_ND.double(), dim=1)
        @ torch.nn.functional.normalize(x_ND.double(), dim=1).T
    )
    expected = (exact.square().sum() - count) / (count * (count - 1))
    assert many.dtype == torch.float32
    assert many.item() == pytest.approx(expected.item(), rel=1e-5)
    assert many.item() == pytest.approx(1 / dim, rel=0.01)


def test_copies_of_a_text_are_no_pair() -> None:
    """Two equal texts count nothing, and do not pull a third."""
    g = random_gathered(7, num_queries=3, num_keys=1)
    assert evaluate(spread, g, TERM())[:2] == (0, 0)
    two = replace(
        g, query_key_A=torch.tensor([5, 5, 6]), query_index_A=torch.tensor([2, 1, 0]), owner_C=g.owner_C * 0
    )
    cosines = torch.nn.functional.cosine_similarity(two.queries_AD[1], two.queries_AD[2], dim=0)
    assert evaluate(spread, two, TERM())[0] == pytest.approx(float(cosines) ** 2, rel=1e-12)
