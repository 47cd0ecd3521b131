"""Soft labels against plain Python loops."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

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
from embedtrain.config.terms import DistillCE, DistillKL, LearnedTemperature, MarginMSE
from embedtrain.loss.soft_labels import distill_ce, distill_kl, margin_mse, min_max, own_groups, z_score

KL, CE = partial(DistillKL, kind="distill_kl"), partial(DistillCE, kind="distill_ce")
MSE = partial(MarginMSE, kind="margin_mse")
KINDS = {"distill_kl": (distill_kl, KL), "distill_ce": (distill_ce, CE), "margin_mse": (margin_mse, MSE)}
SoftLabels = DistillKL | DistillCE | MarginMSE


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    norm = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm


def slow_rows(g: Gathered, term: SoftLabels) -> list[list[tuple[float, float, bool]]]:
    """Of each local query: cosine, normalised teacher score, is positive, for what the teacher scored."""
    queries, candidates = g.queries_AD.tolist(), g.candidates_CD.tolist()
    rows = []
    for a in g.local_B.tolist():
        own = [c for c, owner in enumerate(g.owner_C.tolist()) if owner == int(g.query_index_A[a])]
        if term.teacher == "vectors":
            assert g.teacher_vectors is not None
            query = g.teacher_vectors.queries_NK[a].tolist()
            scores = {c: cosine(query, g.teacher_vectors.documents_CK[c].tolist()) for c in own}
        else:
            column = g.teacher_scores[term.teacher].tolist()
            scores = {c: column[c] for c in own if not math.isnan(column[c])}
        normal = slow_normalized(list(scores.values()), term.teacher_normalization)
        rows.append(
            [
                (cosine(queries[a], candidates[c]), t, bool(g.is_positive_C[c]))
                for c, t in zip(scores, normal, strict=True)
            ]
        )
    return rows


def slow_normalized(scores: list[float], how: str) -> list[float]:
    if how == "none" or not scores:
        return scores
    low, high = min(scores), max(scores)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return [0.0] * len(scores)
    if how == "min_max":
        return [(t - low) / (high - low) for t in scores]
    return [(t - statistics.fmean(scores)) / statistics.pstdev(scores) for t in scores]


def slow_distribution(values: Sequence[float], temperature: float) -> list[float]:
    """Log-softmax."""
    top = max(values)
    total = math.fsum(math.exp((x - top) / temperature) for x in values)
    return [(x - top) / temperature - math.log(total) for x in values]


def slow(g: Gathered, term: SoftLabels, temperature: float) -> tuple[float, int]:
    """The definitions, one candidate at a time."""
    parts = []
    for row in slow_rows(g, term):
        if isinstance(term, MarginMSE):
            for s, t, positive in row:
                parts += [((s - z) / temperature - (t - u)) ** 2 for z, u, p in row if positive and not p]
        elif len(row) >= 2:
            teacher = slow_distribution([t for _, t, _ in row], term.teacher_temperature)
            student = slow_distribution([s for s, _, _ in row], temperature)
            with_entropy = isinstance(term, DistillKL)
            parts.append(
                math.fsum(
                    math.exp(t) * ((t if with_entropy else 0) - s)
                    for t, s in zip(teacher, student, strict=True)
                )
            )
    return math.fsum(parts), len(parts)


@st.composite
def terms(draw: st.DrawFn) -> tuple[SoftLabels, dict[str, Tensor], float]:
    """Any settings; for the distilling ones the student's temperature may be a learned number."""
    common: dict[str, Any] = {
        "teacher": draw(st.sampled_from(["scores", "reranker", "vectors"])),
        "teacher_normalization": draw(st.sampled_from(["none", "min_max", "z_score"])),
    }
    temperature = draw(st.sampled_from([0.01, 0.05, 1.0, 3.0]))
    kind = draw(st.sampled_from(sorted(KINDS)))
    if kind == "margin_mse":
        return MSE(temperature=temperature, **common), {}, temperature
    learned = draw(st.booleans())
    return (
        KINDS[kind][1](
            teacher_temperature=draw(st.sampled_from([0.02, 0.5, 1.0])),
            student_temperature=LearnedTemperature() if learned else temperature,
            **common,
        ),
        {"temperature": torch.tensor(temperature, dtype=torch.float64)} if learned else {},
        temperature,
    )


@st.composite
def batches(draw: st.DrawFn) -> Gathered:
    return random_gathered(
        draw(st.integers(0, 10_000)),
        ties=draw(st.booleans()),
        local=draw(st.sampled_from(["all", "part", "part", "none"])),
    )


@settings(max_examples=300, deadline=None)
@given(batches(), terms())
def test_soft_labels_are_their_definition(
    g: Gathered, case: tuple[SoftLabels, dict[str, Tensor], float]
) -> None:
    term, learned, temperature = case
    total, count, _ = evaluate(KINDS[term.kind][0], g, term, learned)
    slow_total, slow_count = slow(g, term, temperature)
    assert total == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert count == slow_count


@settings(max_examples=60, deadline=None)
@given(batches(), terms())
def test_laws(g: Gathered, case: tuple[SoftLabels, dict[str, Tensor], float]) -> None:
    term, learned, _ = case
    function = KINDS[term.kind][0]
    assert_parts_add_up(function, g, term, learned)
    assert_order_is_free(function, g, term, learned)
    assert_low_precision_is_summed_in_float32(function, g, term, learned)


def test_the_random_batches_hold_what_they_should() -> None:
    """Rows with no score, with one alone, with some; rows without negatives; several positives."""
    counts, negatives, positives = set(), set(), set()
    for seed in range(40):
        g = random_gathered(seed, local="all")
        for row in slow_rows(g, KL()):
            counts.add(len(row))
        groups = own_groups(g)
        positive_BG = g.is_positive_C[groups.place_BG] & groups.real_BG
        positives |= set(positive_BG.sum(dim=1).tolist())
        negatives |= set((groups.real_BG & ~positive_BG).sum(dim=1).tolist())
    assert {0, 1, 2, 5} <= counts
    assert {1, 2, 3} <= positives
    assert {0, 4} <= negatives


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_gradient(kind: str, seed: int) -> None:
    function, make = KINDS[kind]
    g = random_gathered(20 + seed, num_queries=3, local="all")
    if kind == "margin_mse":
        assert_gradient(function, g, make())
    else:
        learned = {"temperature": torch.tensor(0.3, dtype=torch.float64)}
        assert_gradient(function, g, make(student_temperature=LearnedTemperature(initial=0.1)), learned)


def test_kl_is_cross_entropy_less_the_teachers_entropy() -> None:
    """Same gradient; the KL of a teacher that says what the student says is 0."""
    g = random_gathered(3, local="all")
    kl, ce = (
        evaluate(f, g, make(student_temperature=0.5)) for f, make in ((distill_kl, KL), (distill_ce, CE))
    )
    torch.testing.assert_close(kl[2], ce[2], rtol=1e-12, atol=1e-14)
    assert ce[0] > kl[0] + 0.1
    cosines_C = (g.normalize().queries_AD[g.owner_position_C] * g.normalize().candidates_CD).sum(dim=1)
    told = replace(g, teacher_scores={"scores": cosines_C})
    same = evaluate(distill_kl, told, KL(teacher_temperature=0.02, student_temperature=0.02))
    assert same[0] == pytest.approx(0, abs=1e-12)
    assert same[1] > 0
    assert float(same[2].abs().max()) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["distill_kl", "distill_ce"])
def test_a_wide_spread_does_not_underflow_to_nan(kind: str, dtype: torch.dtype) -> None:
    """exp(-spread / temperature) is 0 in either precision; the loss is the student's."""
    function, make = KINDS[kind]
    g = random_gathered(5, num_queries=1, max_positives=1, local="all", dtype=dtype)
    size = len(g.owner_C)
    assert size >= 2
    query_1D = torch.nn.functional.one_hot(torch.tensor([0]), g.dim).to(dtype)
    candidates_CD = -query_1D.repeat(size, 1)
    candidates_CD[-1] = query_1D[0]
    scores_C = torch.linspace(2000, 0, size, dtype=torch.float64)
    wide = replace(g, queries_AD=query_1D, candidates_CD=candidates_CD, teacher_scores={"scores": scores_C})
    total, count, _ = evaluate(function, wide, make(student_temperature=0.001))
    assert (total, count) == (pytest.approx(2000, rel=1e-6), 1)


@pytest.mark.parametrize("normalize", [min_max, z_score])
def test_constant_scores_say_nothing(normalize: Any) -> None:
    """Three times 0.1 has a mean that is not 0.1: rounding must not be blown up to a ranking."""
    nan = math.nan
    rows = [[0.1, 0.1, 0.1, nan], [nan, nan, nan, nan], [-3, nan, nan, nan], [0, 0, 0, 0]]
    scores_BG = torch.tensor(rows, dtype=torch.float64)
    assert float(scores_BG[0, :3].mean()) != float(scores_BG[0, 0])
    normal_BG = normalize(scores_BG)
    assert torch.equal(normal_BG.isnan(), scores_BG.isnan())
    assert float(normal_BG.nan_to_num(0).abs().max()) < 1e-15


def test_one_score_alone_is_no_distribution() -> None:
    g = random_gathered(2, num_queries=2, local="all")
    one = torch.full_like(g.teacher_scores["scores"], math.nan)
    one[0] = 1.0
    for kind in ("distill_kl", "distill_ce", "margin_mse"):
        function, make = KINDS[kind]
        assert evaluate(function, replace(g, teacher_scores={"scores": one}), make())[:2] == (0, 0)


def test_only_the_rows_own_candidates_are_gathered() -> None:
    """Another row's vector gets no gradient, and a NaN in it does no harm."""
    g = random_gathered(8, num_queries=5, local="all").rows(1, 2)
    own_C = g.owner_C == g.query_index_B
    assert bool(own_C.any())
    assert not bool(own_C.all())
    candidates_CD = g.candidates_CD.clone()
    candidates_CD[~own_C] = math.nan
    term = KL(teacher="vectors")
    total, count, _ = evaluate(distill_kl, g, term)
    harmed, _ = distill_kl(replace(g, candidates_CD=candidates_CD), term, {})
    assert (harmed.item(), count) == (total, 1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_not_there_is_named(kind: str) -> None:
    function, make = KINDS[kind]
    g = random_gathered(1)
    with pytest.raises(UserError) as error:
        function(g, make(teacher="bm25"), {})
    assert str(error.value) == (
        f"source 'faq', term {kind}: the rows have no teacher scores 'bm25'; found: scores, reranker"
    )
    with pytest.raises(UserError) as error:
        function(replace(g, teacher_vectors=None), make(teacher="vectors"), {})
    assert str(error.value) == f"source 'faq', term {kind}: the batch has no teacher vectors"
