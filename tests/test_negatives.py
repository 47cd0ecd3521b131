"""mining/negatives.py against the same rules in plain Python."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.mining import Select
from embedtrain.config.rules import AbsoluteScore, MarginToPositive, Naive, PercentOfPositive, Rule
from embedtrain.mining.negatives import (
    Candidates,
    Reason,
    ceiling,
    count_reasons,
    count_rows,
    judge,
    pad,
    reason_name,
)

RULES: list[Rule] = [
    PercentOfPositive(kind="perc_pos"),
    PercentOfPositive(kind="perc_pos", fraction=0.5),
    MarginToPositive(kind="margin_pos"),
    MarginToPositive(kind="margin_pos", margin=0),
    AbsoluteScore(kind="absolute"),
    AbsoluteScore(kind="absolute", ceiling=-0.2),
    Naive(kind="naive"),
]


def select_stage(rule: Rule | None = None, **changes: object) -> Select:
    values = {"name": "s", "kind": "select", "candidates": "m", "rule": rule or Naive(kind="naive")}
    return Select(**(values | changes))


def below(rule: Rule, score: float, positive: float) -> bool:
    """A rule as its paper writes it; perc_pos mirrored where the positive's score is not positive."""
    if rule.kind == "perc_pos" and positive <= 0:
        return score < (2 - rule.fraction) * positive
    if rule.kind == "perc_pos":
        return score < rule.fraction * positive
    if rule.kind == "margin_pos":
        return score < positive - rule.margin
    if rule.kind == "absolute":
        return score < rule.ceiling
    return True


def slow_judge(rows: list[dict], select: Select) -> list[list[str]]:
    """One candidate after the other: the name of what became of it."""
    answers = []
    for row in rows:
        answer, kept = [], 0
        top = select.require_positive_in_top
        dropped = top is not None and not 1 <= row["positive_rank"] <= top
        for rank, (key, score) in enumerate(row["candidates"], start=1):
            if dropped:
                answer.append("row_dropped")
            elif key == row["query"]:
                answer.append("same_as_query")
            elif key in row["known"]:
                answer.append("same_as_positive")
            elif rank < select.first_rank:
                answer.append("before_first_rank")
            elif rank > select.last_rank:
                answer.append("after_last_rank")
            elif not below(select.rule, score, row["positive_score"]):
                answer.append(select.rule.kind)
            elif kept == select.num_negatives:
                answer.append("not_needed")
            else:
                kept += 1
                answer.append("kept")
        answers.append(answer)
    return answers


def as_arrays(rows: list[dict]) -> Candidates:
    keys, present = pad([[key for key, _ in row["candidates"]] for row in rows])
    scores = np.zeros(keys.shape)
    for number, row in enumerate(rows):
        scores[number, : len(row["candidates"])] = [score for _, score in row["candidates"]]
    known, known_mask = pad([sorted(row["known"]) for row in rows])
    return Candidates(
        key_QK=keys,
        score_QK=scores,
        present_QK=present,
        query_key_Q=np.array([row["query"] for row in rows], np.int64),
        known_QP=known,
        known_mask_QP=known_mask,
        positive_score_Q=np.array([row["positive_score"] for row in rows], np.float64),
        positive_rank_Q=np.array([row["positive_rank"] for row in rows], np.int64),
    )


# With multiples of 1/8 no score stands within rounding of a rule's bound, unless exactly on it.
scores = st.integers(-8, 8).map(lambda number: number / 8)
row = st.fixed_dictionaries(
    {
        "candidates": st.lists(st.tuples(st.integers(-3, 8), scores), max_size=12).map(
            lambda found: sorted(found, key=lambda pair: -pair[1])
        ),
        "query": st.integers(-3, 8),
        "known": st.frozensets(st.integers(-3, 8), max_size=3),
        "positive_score": scores,
        "positive_rank": st.integers(0, 12),
    }
)


@settings(max_examples=400, deadline=None)
@given(
    rows=st.lists(row, max_size=6),
    rule=st.sampled_from(RULES),
    window=st.tuples(st.integers(1, 6), st.integers(0, 8)),
    num_negatives=st.integers(1, 4),
    top=st.none() | st.integers(1, 12),
)
def test_equals_the_slow_rules(rows, rule, window, num_negatives, top) -> None:
    select = select_stage(
        rule,
        first_rank=window[0],
        last_rank=window[0] + window[1],
        num_negatives=num_negatives,
        require_positive_in_top=top,
    )
    candidates = as_arrays(rows)
    reasons = judge(candidates, select)
    expected = slow_judge(rows, select)
    found = [
        [reason_name(Reason(value), rule) for value in line if value != Reason.ABSENT] for line in reasons
    ]
    assert found == expected
    counts = Counter(name for line in expected for name in line)
    assert {name: count for name, count in count_reasons(reasons, rule).items() if count} == dict(counts)
    summary = count_rows(reasons, candidates, select)
    assert sum(summary.values()) == len(rows)
    negatives = [line.count("kept") for line, one in zip(expected, rows, strict=True)]
    assert summary["with_all_negatives"] == negatives.count(num_negatives)
    assert summary["dropped"] == sum(top is not None and not 1 <= one["positive_rank"] <= top for one in rows)
    for line, one in zip(reasons, rows, strict=True):
        kept = {key for (key, _), value in zip(one["candidates"], line, strict=False) if value == Reason.KEPT}
        assert not kept & (one["known"] | {one["query"]})


@pytest.mark.parametrize("positive", [1.0, 0.6, 0.1, 0.0, -0.1, -0.6, -1.0])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95, 1.0])
def test_perc_pos_never_lets_a_candidate_pass_its_positive(positive: float, fraction: float) -> None:
    rule = PercentOfPositive(kind="perc_pos", fraction=fraction)
    (limit,) = ceiling(rule, np.array([positive]))
    assert limit <= positive
    if positive > 0:
        assert limit == pytest.approx(fraction * positive)
    finer = np.linspace(-1, 1, 2001)
    assert (np.diff(ceiling(rule, finer)) > 0).all()  # a better positive never means a lower bound


def test_the_published_constants_are_the_defaults() -> None:
    assert (RULES[0].fraction, RULES[2].margin, RULES[4].ceiling) == (0.95, 0.05, 0.7)
    assert select_stage().num_negatives == 7


def test_scores_equal_to_the_bound_are_refused() -> None:
    rows = [
        {
            "candidates": [(1, 0.5), (2, 0.25)],
            "query": 0,
            "known": frozenset(),
            "positive_score": 0.5,
            "positive_rank": 1,
        }
    ]
    reasons = judge(as_arrays(rows), select_stage(PercentOfPositive(kind="perc_pos", fraction=0.5)))
    assert reasons.tolist() == [[Reason.RULE, Reason.RULE]]


def test_scores_that_are_not_numbers_are_refused() -> None:
    rows = [
        {
            "candidates": [(1, float("nan"))],
            "query": 0,
            "known": frozenset(),
            "positive_score": 0.5,
            "positive_rank": 1,
        }
    ]
    assert judge(as_arrays(rows), select_stage()).tolist() == [[Reason.RULE]]


def test_a_rule_without_a_ceiling_is_an_error() -> None:
    with pytest.raises(TypeError, match="no ceiling is known for the rule object"):
        ceiling(object(), np.zeros(1))
