"""The score that a negative stays below, for each rule on scores. Pure.

Q rows: `positive_Q` float64 is the score of each row's lowest-scored positive, NaN where one has none.
"""

from functools import singledispatch

import numpy as np

from embedtrain.config.rules import (
    AbsoluteScore,
    AdaptiveMargin,
    AnyRule,
    MarginToPositive,
    PercentOfPositive,
    TeacherCeiling,
)


@singledispatch
def limit(rule: AnyRule, positive_Q: np.ndarray, all_positives: np.ndarray) -> np.ndarray:
    """limit_Q float64: a candidate passes iff its score is below; NaN where the positive has no score.

    `all_positives` are the scores of all positives of the source, without NaN.
    """
    raise TypeError(f"no limit is known for the rule {type(rule).__name__}")


@limit.register
def _(rule: PercentOfPositive, positive_Q: np.ndarray, all_positives: np.ndarray) -> np.ndarray:
    return percent(positive_Q, rule.fraction)


@limit.register
def _(rule: MarginToPositive, positive_Q: np.ndarray, all_positives: np.ndarray) -> np.ndarray:
    return positive_Q - rule.margin


@limit.register
def _(rule: AdaptiveMargin, positive_Q: np.ndarray, all_positives: np.ndarray) -> np.ndarray:
    """Where the floor lies above a ceiling the ceiling wins: the stricter of the two."""
    limit_Q = percent(positive_Q, rule.fraction)
    if rule.floor is not None:
        limit_Q = np.maximum(limit_Q, rule.floor)
    if rule.ceiling is not None:
        limit_Q = np.minimum(limit_Q, rule.ceiling)
    if rule.ceiling_quantile is not None and len(all_positives):
        limit_Q = np.minimum(limit_Q, np.quantile(all_positives.astype(np.float64), rule.ceiling_quantile))
    return limit_Q


@limit.register
def _(rule: AbsoluteScore | TeacherCeiling, positive_Q: np.ndarray, all_positives: np.ndarray) -> np.ndarray:
    return np.full_like(positive_Q, rule.ceiling)


def percent(positive_Q: np.ndarray, fraction: float) -> np.ndarray:
    """fraction x score, as published, where the score is positive; mirrored below zero, so never above it."""
    return positive_Q - (1.0 - fraction) * np.abs(positive_Q)


def lowest(positive_scores: list[np.ndarray]) -> np.ndarray:
    """positive_Q float64: each row's lowest score; NaN where one of its positives has none."""
    return np.array([scores.min(initial=np.inf) for scores in positive_scores], np.float64)
