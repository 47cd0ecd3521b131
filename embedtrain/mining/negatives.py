"""The rules that keep or refuse a mined candidate, each with its reason. Pure, a whole source at once.

Dimensions: Q mined rows, K candidates a row, best first, P known positives of a row.

Where a row has several positives, rules compare with the one the model scores lowest: a negative must stay
below all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import singledispatch

import numpy as np

from embedtrain.config.mining import Select
from embedtrain.config.rules import AbsoluteScore, AnyRule, MarginToPositive, PercentOfPositive


class Reason(IntEnum):
    """What became of a candidate; the first that applies, in this order."""

    ABSENT = 0  # no candidate here: the corpus is smaller than top_k
    ROW_DROPPED = 1
    SAME_AS_QUERY = 2
    SAME_AS_POSITIVE = 3
    BEFORE_FIRST_RANK = 4
    AFTER_LAST_RANK = 5
    RULE = 6
    NOT_NEEDED = 7
    KEPT = 8


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ranked candidates of one source.

    `key_QK` int64 text keys and `score_QK`, best first; `present_QK` bool. `query_key_Q` int64; `known_QP`
    int64 keys of all known positives of the query, `known_mask_QP` bool. `positive_score_Q` is that of the
    row's lowest-scored positive, `positive_rank_Q` its rank from 1, or 0 where it is no candidate.
    """

    key_QK: np.ndarray
    score_QK: np.ndarray
    present_QK: np.ndarray
    query_key_Q: np.ndarray
    known_QP: np.ndarray
    known_mask_QP: np.ndarray
    positive_score_Q: np.ndarray
    positive_rank_Q: np.ndarray


def judge(candidates: Candidates, select: Select) -> np.ndarray:
    """reason_QK int8: the `Reason` of every candidate."""
    ranks_K = np.arange(1, candidates.key_QK.shape[1] + 1)
    limit_Q = lowest_ceiling(select.rules, candidates.positive_score_Q.astype(np.float64))
    refusals = (
        (Reason.ABSENT, ~candidates.present_QK),
        (Reason.ROW_DROPPED, ~consistent(candidates.positive_rank_Q, select)[:, None]),
        (Reason.SAME_AS_QUERY, candidates.key_QK == candidates.query_key_Q[:, None]),
        (Reason.SAME_AS_POSITIVE, known_positive(candidates)),
        (Reason.BEFORE_FIRST_RANK, (ranks_K < select.first_rank)[None, :]),
        (Reason.AFTER_LAST_RANK, (ranks_K > select.last_rank)[None, :]),
        (Reason.RULE, ~(candidates.score_QK.astype(np.float64) < limit_Q[:, None])),
    )
    reason_QK = np.full(candidates.key_QK.shape, Reason.KEPT, np.int8)
    for reason, refused in reversed(refusals):
        reason_QK = np.where(refused, np.int8(reason), reason_QK)
    kept_QK = reason_QK == Reason.KEPT
    surplus_QK = kept_QK & (np.cumsum(kept_QK, axis=1) > select.num_negatives)
    return np.where(surplus_QK, np.int8(Reason.NOT_NEEDED), reason_QK)


def lowest_ceiling(rules: Sequence[AnyRule], positive_scores: np.ndarray) -> np.ndarray:
    """The score a candidate must stay below to pass every rule."""
    none = np.full_like(positive_scores, np.inf)
    return np.min([none, *(ceiling(rule, positive_scores) for rule in rules)], axis=0)


@singledispatch
def ceiling(rule: AnyRule, positive_scores: np.ndarray) -> np.ndarray:
    """The score a candidate must stay below, for each positive score."""
    raise TypeError(f"no ceiling is known for the rule {type(rule).__name__}")


@ceiling.register
def _(rule: PercentOfPositive, positive_scores: np.ndarray) -> np.ndarray:
    """fraction x score, as published, where the score is positive; mirrored below zero, so never above it."""
    return positive_scores - (1.0 - rule.fraction) * np.abs(positive_scores)


@ceiling.register
def _(rule: MarginToPositive, positive_scores: np.ndarray) -> np.ndarray:
    return positive_scores - rule.margin


@ceiling.register
def _(rule: AbsoluteScore, positive_scores: np.ndarray) -> np.ndarray:
    return np.full_like(positive_scores, rule.ceiling)


def consistent(positive_ranks: np.ndarray, select: Select) -> np.ndarray:
    """Rows whose positive is among the first `require_positive_in_top`; all where nothing is required."""
    if select.require_positive_in_top is None:
        return np.ones(len(positive_ranks), bool)
    return (positive_ranks >= 1) & (positive_ranks <= select.require_positive_in_top)


def known_positive(candidates: Candidates) -> np.ndarray:
    """same_QK bool: the candidate's text is one of the query's known positives."""
    same_QK = np.zeros(candidates.key_QK.shape, bool)
    for known_Q, mask_Q in zip(candidates.known_QP.T, candidates.known_mask_QP.T, strict=True):
        same_QK |= (candidates.key_QK == known_Q[:, None]) & mask_Q[:, None]
    return same_QK


def pad(lines: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ragged lines of keys as an int64 matrix and the mask of its real entries."""
    width = max(map(len, lines), default=0)
    padded = np.zeros((len(lines), width), np.int64)
    mask = np.zeros((len(lines), width), bool)
    for number, line in enumerate(lines):
        padded[number, : len(line)] = line
        mask[number, : len(line)] = True
    return padded, mask


def count_reasons(reason_QK: np.ndarray, rules: Sequence[AnyRule]) -> Mapping[str, int]:
    """How many candidates met each reason; the rule's refusals stand under the rule's own name."""
    counts = np.bincount(reason_QK.ravel(), minlength=len(Reason))
    return {reason_name(reason, rules): int(counts[reason]) for reason in Reason if reason != Reason.ABSENT}


def reason_name(reason: Reason, rules: Sequence[AnyRule]) -> str:
    """`same_as_query`, `perc_pos` …"""
    return rules[0].kind if reason == Reason.RULE and rules else reason.name.lower()


def count_rows(reason_QK: np.ndarray, candidates: Candidates, select: Select) -> Mapping[str, int]:
    """Rows by what they got: dropped, without negatives, with fewer than asked, with all."""
    kept_Q = consistent(candidates.positive_rank_Q, select)
    negatives_Q = (reason_QK == Reason.KEPT).sum(axis=1)[kept_Q]
    full = int((negatives_Q == select.num_negatives).sum())
    none = int((negatives_Q == 0).sum())
    return {
        "dropped": int((~kept_Q).sum()),
        "without_negatives": none,
        "with_fewer_negatives": len(negatives_Q) - full - none,
        "with_all_negatives": full,
    }
