"""The numbers of the mining report against loops over candidates, and against scipy."""

import itertools
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from embedtrain.mining.report.agreement import TOP, agreements, kendall_tau, top_jaccard
from embedtrain.mining.report.scores import BINS, column_scores
from embedtrain.mining.report.suspects import deviation, greatest_excess, worst
from embedtrain.mining.tables import Column

# few values, so that scores are often equal; NaN is a score that is not there
scores = st.sampled_from([float("nan"), -1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 3.5])
columns_of = st.integers(0, 14).flatmap(
    lambda width: st.lists(st.lists(scores, min_size=width, max_size=width), min_size=2, max_size=3)
)


def as_scores(lines: list[list[float]]) -> np.ndarray:
    return np.array(lines, np.float32).reshape(len(lines), -1)


def common_of(first: list[float], second: list[float]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(first, second, strict=True) if not (math.isnan(a) or math.isnan(b))]


def slow_jaccard(first: list[float], second: list[float], top: int) -> float:
    both = common_of(first, second)
    if len(both) <= top:
        return math.nan
    best = []
    for side in (0, 1):
        order = sorted(range(len(both)), key=lambda n: -both[n][side])
        best.append(set(order[:top]))
    return len(best[0] & best[1]) / len(best[0] | best[1])


def slow_kendall(first: list[float], second: list[float]) -> float:
    agree, one, other = 0, 0, 0
    for (a, b), (c, d) in combinations(common_of(first, second), 2):
        agree += int(np.sign(a - c)) * int(np.sign(b - d))
        one += a != c
        other += b != d
    return agree / math.sqrt(one * other) if one * other else math.nan


@settings(max_examples=150, deadline=None)
@given(columns_of)
def test_agreement_is_that_of_loops(lines: list[list[float]]) -> None:
    jaccard_CC, kendall_CC = top_jaccard(as_scores(lines), 3), kendall_tau(as_scores(lines))
    for i, j in itertools.permutations(range(len(lines)), 2):
        first, second = sorted((i, j))
        np.testing.assert_equal(jaccard_CC[i, j], slow_jaccard(lines[first], lines[second], 3))
        np.testing.assert_allclose(kendall_CC[i, j], slow_kendall(lines[i], lines[j]), atol=1e-12)


def test_kendall_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    scores_CK = rng.integers(0, 30, (3, 100)).astype(np.float32)  # with equal ones
    tau_CC = kendall_tau(scores_CK)
    for i, j in combinations(range(3), 2):
        assert tau_CC[i, j] == pytest.approx(kendalltau(scores_CK[i], scores_CK[j]).statistic, abs=1e-12)


def test_agreement_of_columns_is_a_mean_over_rows_that_tell() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(size=(4, 20)).astype(np.float32)
    second = first.copy()
    second[1] = -first[1]
    second[2, 5:] = np.nan  # five candidates in common: no best ten, but an order
    second[3] = 7.0  # all alike: no order; the best ten are the first ten
    (found,) = agreements({"dense": first, "teacher": second})
    assert (found.first, found.second) == ("dense", "teacher")
    assert (found.jaccard_rows, found.kendall_rows) == (3, 3)
    assert found.kendall == pytest.approx((1 - 1 + 1) / 3)
    told = [slow_jaccard(first[n].tolist(), second[n].tolist(), TOP) for n in (0, 1, 3)]
    assert told[0] == 1.0
    assert found.jaccard == pytest.approx(sum(told) / 3)
    assert agreements({"dense": first}) == agreements({"dense": first[:0], "teacher": first[:0]}) == []
    (nothing,) = agreements({"dense": first[:, :1], "teacher": second[:, :1]})
    assert (nothing.jaccard, nothing.jaccard_rows, nothing.kendall, nothing.kendall_rows) == (
        None,
        0,
        None,
        0,
    )


rows_of = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.tuples(
            st.lists(scores, min_size=width, max_size=width),  # candidates
            st.lists(scores, max_size=3),  # positives
            st.lists(st.booleans(), min_size=width, max_size=width),  # counts before
            st.lists(st.booleans(), min_size=width, max_size=width),  # is kept
            st.booleans(),  # the row stays
        ),
        min_size=1,
        max_size=6,
    )
)


def slow_spread(values: list[float], edges: list[float]) -> list[int]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        last = max(place for place in range(len(counts)) if edges[place] <= value)
        counts[last] += 1
    return counts


@settings(max_examples=150, deadline=None)
@given(rows_of)
def test_scores_before_and_after_are_those_of_loops(rows: list) -> None:
    before_QK, kept_QK = (np.array([row[place] for row in rows]) for place in (2, 3))
    kept_QK &= before_QK
    positive_scores = [np.array(row[1], np.float32) for row in rows]
    stays_Q = np.array([row[4] for row in rows])
    found = column_scores(as_scores([row[0] for row in rows]), positive_scores, before_QK, kept_QK, stays_Q)
    groups: dict[str, list[float]] = {name: [] for name in ("positives", "stayed", "before", "kept")}
    above = {"before": 0, "kept": 0}
    for number, (candidates, positives, _, _, stays) in enumerate(rows):
        told = [value for value in positives if not math.isnan(value)]
        lowest = min(told) if told and len(told) == len(positives) else math.inf
        groups["positives"] += told
        groups["stayed"] += told if stays else []
        for place, value in enumerate(candidates):
            for name, marked in (("before", before_QK), ("kept", kept_QK)):
                if marked[number, place] and not math.isnan(value):
                    groups[name].append(value)
                    above[name] += value >= lowest
    if not groups["positives"] and not groups["before"]:
        assert found is None
        return
    assert found is not None
    spreads = (found.positives_before, found.positives_after, found.candidates_before, found.negatives_after)
    for spread, values in zip(spreads, groups.values(), strict=True):
        assert spread.counts == slow_spread(values, found.edges)
        assert spread.num == len(values)
        assert spread.mean == (pytest.approx(sum(values) / len(values)) if values else None)
    assert (found.above_before, found.above_after) == (above["before"], above["kept"])
    assert len(found.edges) == BINS + 1
    assert found.edges == sorted(set(found.edges))


@settings(max_examples=150, deadline=None)
@given(rows_of)
def test_the_excess_is_that_of_loops(rows: list) -> None:
    present_QK = np.array([row[2] for row in rows])
    score_QK = as_scores([row[0] for row in rows])
    positives = [np.array(row[1], np.float32) for row in rows]
    columns = [Column(score_QK, positives), Column((score_QK**2 * 3).astype(np.float32), positives[::-1])]
    found = greatest_excess(columns, present_QK)
    for number, k in np.ndindex(*present_QK.shape):
        best, place = -math.inf, 0
        for c, column in enumerate(columns):
            told = column.positive_scores[number].tolist()
            score = float(column.score_QK[number, k])
            if present_QK[number, k] and told and not np.isnan([score, *told]).any():
                excess = (score - min(told)) / deviation(column.score_QK[present_QK].astype(np.float64))
                best, place = (excess, c) if excess > best else (best, place)
        assert found.excess_QK[number, k] == pytest.approx(best)
        assert found.column_QK[number, k] == place


def test_the_worst_come_first_and_one_a_row() -> None:
    score_QK = np.array([[0.9, 0.8], [0.2, 0.7], [0.4, np.nan], [0.1, 0.1]], np.float32)
    positives = [np.array([0.5], np.float32)] * 3 + [np.array([np.nan], np.float32)]
    everywhere = np.ones((4, 2), bool)
    excess = greatest_excess([Column(score_QK, positives)], everywhere)
    assert worst(excess, everywhere, 9) == [(0, 0), (1, 1), (2, 0)]
    assert worst(excess, everywhere, 2) == [(0, 0), (1, 1)]
    assert worst(excess, np.array([[False, True], [True, False], [False, True], [True, True]]), 9) == [
        (0, 1),
        (1, 0),
    ]
    nothing = np.zeros((3, 0))
    assert worst(greatest_excess([Column(nothing, positives[:3])], nothing > 0), nothing > 0, 9) == []


def test_the_deviation_is_that_of_scores_that_are_there() -> None:
    assert deviation(np.array([1.0, np.nan, 3.0])) == 1.0
    assert deviation(np.array([0.0, np.nan, 4.0, 8.0])) == pytest.approx(math.sqrt(32 / 3))
    assert deviation(np.array([2.0, 2.0])) == deviation(np.array([np.nan])) == deviation(np.array([])) == 1.0
