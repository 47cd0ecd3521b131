"""Vector distillation against plain Python loops."""

import math
from collections.abc import Sequence
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
    assert_parts_add_up,
    evaluate,
)
from loss_reference import random_gathered
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.errors import UserError
from embedtrain.config.terms import EmbedDistill
from embedtrain.loss.embed_distill import embed_distill

TERM = partial(EmbedDistill, kind="embed_distill")
Case = tuple[Gathered, EmbedDistill, dict[str, Tensor]]


def slow_unit(x: Sequence[float]) -> list[float]:
    norm = math.sqrt(math.fsum(a * a for a in x))
    return [a / norm for a in x]


def slow_distance(term: EmbedDistill, y: Sequence[float], t: Sequence[float]) -> float:
    if term.normalize or term.distance == "cosine":
        y, t = slow_unit(y), slow_unit(t)
    if term.distance == "cosine":
        return 1 - math.fsum(a * b for a, b in zip(y, t, strict=True))
    return math.fsum((a - b) ** 2 for a, b in zip(y, t, strict=True))


def slow_texts(g: Gathered, term: EmbedDistill) -> list[tuple[list[float], list[float]]]:
    """Vector and teacher vector of each local text that is switched on."""
    teacher = g.teacher_vectors
    assert teacher is not None
    texts = []
    for a in g.local_B.tolist():
        if term.queries:
            texts.append((g.queries_AD[a].tolist(), teacher.queries_NK[a].tolist()))
        for c, owner in enumerate(g.owner_C.tolist()):
            wanted = term.positives if bool(g.is_positive_C[c]) else term.negatives
            if wanted and owner == int(g.query_index_A[a]):
                texts.append((g.candidates_CD[c].tolist(), teacher.documents_CK[c].tolist()))
    return texts


def slow_embed_distill(g: Gathered, term: EmbedDistill, learned: dict[str, Tensor]) -> tuple[float, int]:
    distances = []
    for x, t in slow_texts(g, term):
        if term.projection:
            rows, bias = learned["projection_weight"].tolist(), learned["projection_bias"].tolist()
            y = [
                b + math.fsum(w * a for w, a in zip(row, x, strict=False))
                for row, b in zip(rows, bias, strict=True)
            ]
        else:
            y, t = x, t[: len(x)]
        distances.append(slow_distance(term, y, t))
    return math.fsum(distances), len(distances)


@st.composite
def cases(draw: st.DrawFn, views: bool = True) -> Case:
    """All switches; with a projection the teacher has other dims; a view of fewer dims, or all."""
    projection = draw(st.booleans())
    dim = draw(st.integers(2, 6))
    seed = draw(st.integers(0, 10_000))
    g = random_gathered(
        seed,
        dim=dim,
        teacher_dim=5 if projection else dim,
        ties=draw(st.booleans()),
        local=draw(st.sampled_from(["all", "part", "part", "none"])),
    )
    texts = draw(st.sampled_from([(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]))
    term = TERM(
        distance=draw(st.sampled_from(["cosine", "squared_l2"])),
        projection=projection,
        normalize=draw(st.booleans()),
        **dict(zip(("queries", "positives", "negatives"), map(bool, texts), strict=True)),
    )
    g = g.at_dim(draw(st.integers(1, dim))) if views and not nearly_zero(g, 1) else g
    return g, term, projection_of(seed, dim) if projection else {}


def nearly_zero(g: Gathered, dim: int) -> bool:
    """Whether a vector, or the teacher's, has nothing left in its first dims: no direction to compare."""
    teacher = g.teacher_vectors
    assert teacher is not None
    vectors = (g.queries_AD, g.candidates_CD, teacher.queries_NK, teacher.documents_CK)
    return any(bool((v[:, :dim].norm(dim=1) < 1e-3).any()) for v in vectors)


def projection_of(seed: int, dim: int, teacher_dim: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "projection_weight": torch.randn(teacher_dim, dim, dtype=torch.float64, generator=generator),
        "projection_bias": torch.randn(teacher_dim, dtype=torch.float64, generator=generator),
    }


@settings(max_examples=300, deadline=None)
@given(cases())
def test_embed_distill_is_its_definition(case: Case) -> None:
    g, term, learned = case
    total, count, _ = evaluate(embed_distill, g, term, learned)
    slow_total, slow_count = slow_embed_distill(g, term, learned)
    assert total == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert count == slow_count


@settings(max_examples=60, deadline=None)
@given(cases())
def test_laws(case: Case) -> None:
    g, term, learned = case
    assert_parts_add_up(embed_distill, g, term, learned)
    assert_order_is_free(embed_distill, g, term, learned)
    in_float32 = {name: parameter.float() for name, parameter in learned.items()}
    assert_low_precision_is_summed_in_float32(embed_distill, g, term, in_float32)


@pytest.mark.parametrize("distance", ["cosine", "squared_l2"])
@pytest.mark.parametrize("dim", [6, 3])
def test_gradient(distance: str, dim: int) -> None:
    """At the vectors and at the projection, whose last columns a view leaves alone."""
    g = random_gathered(4, num_queries=3, dim=6, local="all").at_dim(dim)
    assert_gradient(embed_distill, g, TERM(projection=True, distance=distance), projection_of(1, 6))
    assert_gradient(
        embed_distill, random_gathered(4, num_queries=3, dim=6, teacher_dim=6).at_dim(dim), TERM()
    )


def test_a_perfect_student_has_no_loss() -> None:
    g = random_gathered(9, dim=6, teacher_dim=6, local="all")
    assert g.teacher_vectors is not None
    same = replace(
        g, queries_AD=g.teacher_vectors.queries_NK * 3, candidates_CD=g.teacher_vectors.documents_CK
    )
    assert evaluate(embed_distill, same, TERM())[0] == pytest.approx(0, abs=1e-12)
    assert evaluate(embed_distill, same, TERM(distance="squared_l2"))[0] == pytest.approx(0, abs=1e-12)
    raw = evaluate(
        embed_distill, same, TERM(distance="squared_l2", normalize=False, positives=False, negatives=False)
    )
    assert raw[0] == pytest.approx(
        4 * float(g.teacher_vectors.queries_NK[g.local_B].square().sum()), rel=1e-12
    )


def test_on_the_sphere_squared_l2_is_twice_the_cosine_distance() -> None:
    g = random_gathered(10, dim=6, teacher_dim=6, local="all")
    cosine, squared = (evaluate(embed_distill, g, TERM(distance=d)) for d in ("cosine", "squared_l2"))
    assert squared[0] == pytest.approx(2 * cosine[0], rel=1e-12)


def refusal(g: Gathered, term: EmbedDistill, learned: dict[str, Tensor]) -> str:
    with pytest.raises(UserError) as error:
        embed_distill(g, term, learned)
    return str(error.value)


def test_other_dims_are_refused() -> None:
    """A view may cut the teacher's vectors, the model's whole vectors may not; a view is never padded."""
    g = random_gathered(1, dim=4, teacher_dim=5)
    text = "source 'faq', term embed_distill: the teacher's vectors have {} dims and the {} {}; {}"
    advice = "set projection: true, or take a teacher of {} dims"
    assert refusal(g, TERM(), {}) == text.format(5, "model's have", 4, advice.format(4))
    assert refusal(g.at_dim(4), TERM(), {}) == text.format(5, "model's have", 4, advice.format(4))
    embed_distill(g.at_dim(3), TERM(), {})
    small = random_gathered(1, dim=4, teacher_dim=2)
    assert refusal(small.at_dim(3), TERM(), {}) == text.format(2, "model's have", 3, advice.format(3))
    embed_distill(small.at_dim(2), TERM(), {})
    assert refusal(g, TERM(projection=True), projection_of(1, 4, teacher_dim=3)) == text.format(
        5, "projection makes", 3, "project to 5 dims, with one teacher for all sources"
    )
    assert refusal(replace(g, teacher_vectors=None), TERM(), {}) == (
        "source 'faq', term embed_distill: the batch has no teacher vectors"
    )
