"""CoSENT against plain Python loops, and against sentence-transformers."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from contrastive import mean_count, tiny_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_laws import (
    assert_gradient,
    assert_low_precision_is_summed_in_float32,
    assert_order_is_free,
    assert_parity,
    assert_whole_everywhere,
    evaluate,
    features,
    gathered_columns,
    token_columns,
    wrap,
)
from loss_reference import random_gathered
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MatryoshkaLoss
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.objective import Objective
from embedtrain.config.terms import CoSENT, Matryoshka
from embedtrain.loss.graded import cosent
from embedtrain.loss.objective import build_objective

TERM = partial(CoSENT, kind="cosent")
temperatures = st.sampled_from([0.01, 0.05, 1.0])


def slow_cosent(g: Gathered, term: CoSENT) -> tuple[float, int]:
    """The definition: every pair against every pair."""
    index = g.query_index_A.tolist()
    graded = []
    for c, owner in enumerate(g.owner_C.tolist()):
        a = index.index(owner)
        grade = float(g.graded_score_A[a])
        if bool(g.is_positive_C[c]) and not math.isnan(grade):
            score = torch.nn.functional.cosine_similarity(g.queries_AD[a], g.candidates_CD[c], dim=0, eps=0)
            graded.append((grade, float(score)))
    excess = [
        (s_j - s_i) / term.temperature
        for grade_i, s_i in graded
        for grade_j, s_j in graded
        if grade_i > grade_j
    ]
    if not excess:
        return 0.0, 0
    top = max(0.0, *excess)
    return top + math.log(math.fsum([math.exp(-top), *(math.exp(x - top) for x in excess)])), 1


@st.composite
def batches(draw: st.DrawFn) -> Gathered:
    """Grades of few values, so that many tie, or of many."""
    return random_gathered(
        draw(st.integers(0, 10_000)), ties=draw(st.booleans()), num_queries=draw(st.integers(1, 9))
    )


def with_grades(g: Gathered, grades: list[float]) -> Gathered:
    return replace(g, graded_score_A=torch.tensor(grades, dtype=torch.float64))


@settings(max_examples=300, deadline=None)
@given(batches(), temperatures, st.integers(1, 4))
def test_cosent_is_its_definition(g: Gathered, temperature: float, steps: int) -> None:
    g = replace(g, graded_score_A=(g.graded_score_A * steps / 5).round())  # 1 to 5 different grades
    term = TERM(temperature=temperature)
    total, count, _ = evaluate(cosent, g, term)
    slow_total, slow_count = slow_cosent(g, term)
    assert total == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert count == slow_count


@settings(max_examples=60, deadline=None)
@given(batches(), temperatures)
def test_laws(g: Gathered, temperature: float) -> None:
    term = TERM(temperature=temperature)
    assert_whole_everywhere(cosent, g, term)
    assert_order_is_free(cosent, g, term)
    assert_low_precision_is_summed_in_float32(cosent, g, term)


@pytest.mark.parametrize("seed", range(3))
def test_gradient(seed: int) -> None:
    g = random_gathered(40 + seed, num_queries=5, ties=seed == 0)
    assert slow_cosent(g, TERM())[1] == 1
    assert_gradient(cosent, g, TERM(temperature=0.3))


@pytest.mark.parametrize("grades", [[math.nan] * 3, [2.0] * 3, [1.0, math.nan, math.nan]])
def test_grades_that_do_not_differ_count_nothing(grades: list[float]) -> None:
    g = with_grades(random_gathered(6, num_queries=3), grades)
    total, count, gradient = evaluate(cosent, g, TERM())
    assert (total, count, float(gradient.abs().max())) == (0, 0, 0)


def test_large_excesses_do_not_overflow() -> None:
    """Cosines 2 apart over a temperature of 0.001: exp(2000) is beyond float64."""
    g = random_gathered(6, num_queries=2, max_positives=1, max_negatives=0, dtype=torch.float32)
    query_AD = torch.nn.functional.one_hot(torch.tensor([0, 0]), g.dim).float()
    worse = g.owner_C == g.query_index_A[0]
    g = with_grades(
        replace(g, queries_AD=query_AD, candidates_CD=query_AD * (1 - 2 * worse[:, None])), [2, 1]
    )
    assert evaluate(cosent, g, TERM(temperature=0.001))[:2] == (pytest.approx(2000, rel=1e-6), 1)


def graded_columns(num_rows: int = 6) -> tuple:
    """Encoder, its two columns, grades with a tie, and the batch."""
    encoder = tiny_encoder("lora", dtype=torch.float32)
    columns = token_columns(encoder, 2, num_rows)
    grades = torch.tensor([0.1, 3, 5, 3, 0.5, 2.2], dtype=torch.float64)
    return encoder, columns, grades, gathered_columns(encoder, columns, graded_score_A=grades)


def test_parity_with_cosent_loss() -> None:
    encoder, columns, grades, g = graded_columns()
    theirs = CoSENTLoss(wrap(encoder), scale=20.0)(features(columns), grades)
    ours, _ = build_objective(Objective(terms=(TERM(),)))(g, mean_count, {})
    assert_parity(encoder, ours, theirs)


def test_parity_with_matryoshka_loss() -> None:
    encoder, columns, grades, g = graded_columns()
    inner = CoSENTLoss(wrap(encoder), scale=10.0)
    loss = MatryoshkaLoss(inner.model, inner, matryoshka_dims=[32, 8], matryoshka_weights=[1, 0.3])
    theirs: Tensor = loss(features(columns), grades)
    objective = Objective(
        terms=(TERM(temperature=0.1),), matryoshka=Matryoshka(dims=(32, 8), weights=(1.0, 0.3))
    )
    ours, _ = build_objective(objective)(g, mean_count, {})
    assert_parity(encoder, ours, theirs)
