"""Uniformity and effective rank against plain Python, and the sample of texts that they are taken over."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_reference import random_gathered

from embedtrain.loss.geometry import (
    SAMPLE,
    effective_rank,
    sample_documents,
    sample_queries,
    uniformity,
)

Vectors = list[list[float]]


def slow_unit(vector: list[float]) -> list[float]:
    norm = math.sqrt(math.fsum(x * x for x in vector))
    return [x / norm for x in vector]


def slow_uniformity(vectors: Vectors) -> float:
    pairs = list(combinations(vectors, 2))
    squares = [math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in pairs]
    return math.log(math.fsum(math.exp(-2 * square) for square in squares) / len(pairs))


def slow_singular_values(vectors: Vectors) -> list[float]:
    """Norms of the columns once rotations of two at a time have made all columns orthogonal (Jacobi)."""
    columns = [list(column) for column in zip(*vectors, strict=True)]
    for _ in range(60):
        for p, q in combinations(range(len(columns)), 2):
            a, b = columns[p], columns[q]
            dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
            if dot == 0:
                continue
            ratio = (math.fsum(y * y for y in b) - math.fsum(x * x for x in a)) / (2 * dot)
            tangent = math.copysign(1, ratio) / (abs(ratio) + math.hypot(1, ratio))
            cosine = 1 / math.hypot(1, tangent)
            columns[p] = [cosine * (x - tangent * y) for x, y in zip(a, b, strict=True)]
            columns[q] = [cosine * (tangent * x + y) for x, y in zip(a, b, strict=True)]
    return [math.sqrt(math.fsum(x * x for x in column)) for column in columns]


def slow_effective_rank(vectors: Vectors) -> float:
    values = slow_singular_values(vectors)
    shares = [value / math.fsum(values) for value in values]
    return math.exp(-math.fsum(share * math.log(share) for share in shares if share > 0))


def slow_different_texts(vectors: Vectors, keys: list[int], rows: list[int]) -> Vectors:
    first: dict[int, tuple[int, int]] = {}
    for i, (key, row) in enumerate(zip(keys, rows, strict=True)):
        first[key] = min(first.get(key, (row, i)), (row, i))
    return [vectors[first[key][1]] for key in sorted(first)[:SAMPLE]]


@st.composite
def unit_vectors(draw: st.DrawFn) -> Vectors:
    """2 to 6 vectors in 1 to 4 dims; few coordinates, so that many are equal or dependent."""
    dim = draw(st.integers(1, 4))
    vector = st.lists(st.integers(-2, 2).map(float), min_size=dim, max_size=dim).filter(any)
    return [slow_unit(v) for v in draw(st.lists(vector, min_size=2, max_size=6))]


@settings(max_examples=200, deadline=None)
@given(unit_vectors())
def test_uniformity_is_its_definition(vectors: Vectors) -> None:
    found = uniformity(torch.tensor(vectors, dtype=torch.float64))
    assert float(found) == pytest.approx(slow_uniformity(vectors), rel=1e-10, abs=1e-10)


@settings(max_examples=200, deadline=None)
@given(unit_vectors())
def test_effective_rank_is_its_definition(vectors: Vectors) -> None:
    found = effective_rank(torch.tensor(vectors, dtype=torch.float64))
    assert float(found) == pytest.approx(slow_effective_rank(vectors), rel=1e-10)


def test_effective_rank_of_what_is_known() -> None:
    """Orthogonal vectors count each; equal ones count one."""
    assert float(effective_rank(torch.eye(5, dtype=torch.float64))) == pytest.approx(5, rel=1e-12)
    assert float(effective_rank(torch.ones(4, 3, dtype=torch.float64))) == pytest.approx(1, rel=1e-10)


def test_uniformity_of_what_is_known() -> None:
    """Equal vectors give 0; opposite ones, 2 apart, log exp(-8)."""
    assert float(uniformity(torch.tensor([[1.0, 0.0]] * 3))) == 0
    assert float(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))) == pytest.approx(-8, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 30]))
def test_the_samples_are_of_different_texts(seed: int, num_keys: int) -> None:
    g = random_gathered(seed, num_keys=num_keys)
    sides = (
        (sample_queries(g), g.queries_AD, g.query_key_A, g.query_index_A),
        (sample_documents(g), g.candidates_CD, g.document_key_C, g.owner_C),
    )
    for sample, vectors, keys, rows in sides:
        assert sample.tolist() == slow_different_texts(vectors.tolist(), keys.tolist(), rows.tolist())


def test_the_sample_is_bounded_and_does_not_depend_on_the_order() -> None:
    size = SAMPLE + 300
    g = random_gathered(1, num_queries=size, max_positives=1, num_keys=100 * size)
    order_A, order_C = (torch.randperm(len(x)) for x in (g.queries_AD, g.candidates_CD))
    moved = replace(
        g,
        queries_AD=g.queries_AD[order_A],
        query_key_A=g.query_key_A[order_A],
        query_index_A=g.query_index_A[order_A],
        candidates_CD=g.candidates_CD[order_C],
        document_key_C=g.document_key_C[order_C],
        owner_C=g.owner_C[order_C],
    )
    for sample in (sample_queries, sample_documents):
        assert sample(g).shape == (SAMPLE, g.dim)
        assert torch.equal(sample(moved), sample(g))
