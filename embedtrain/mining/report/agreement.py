"""How far columns of scores agree on a row's candidates. Pure.

Dimensions: C columns, Q rows, K candidates of a row, P = K² ordered pairs of candidates. A score that is not
there is NaN, and a candidate counts for two columns only where both have scored it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

TOP = 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two columns, means over the rows in which they can be told; None where there is no such row.

    `jaccard` is of their `TOP` best candidates (0 … 1), `kendall` is tau-b over all candidates (−1 … 1).
    """

    first: str
    second: str
    jaccard: float | None
    jaccard_rows: int
    kendall: float | None
    kendall_rows: int


def agreements(scores: Mapping[str, np.ndarray]) -> list[Agreement]:
    """Every two columns, from their scores (Q, K)."""
    if len(scores) < 2 or not all(map(len, scores.values())):
        return []
    scores_QCK = np.stack(list(scores.values()), axis=1)
    jaccard_QCC = np.stack([top_jaccard(scores_CK, TOP) for scores_CK in scores_QCK])
    kendall_QCC = np.stack([kendall_tau(scores_CK) for scores_CK in scores_QCK])
    found = []
    for (i, first), (j, second) in combinations(enumerate(scores), 2):
        jaccard, kendall = mean_known(jaccard_QCC[:, i, j]), mean_known(kendall_QCC[:, i, j])
        found.append(Agreement(first, second, *jaccard, *kendall))
    return found


def mean_known(values: np.ndarray) -> tuple[float | None, int]:
    """Mean of those that are not NaN, and how many they are."""
    known = values[~np.isnan(values)]
    return (float(known.mean()) if len(known) else None), len(known)


def top_jaccard(scores_CK: np.ndarray, top: int) -> np.ndarray:
    """(C, C) of |A ∩ B| / |A ∪ B|, A and B the `top` best candidates by each of two columns.

    Equal scores stand in the candidates' order. NaN where both have scored no more than `top`: all of them
    would be among the best.
    """
    num = len(scores_CK)
    jaccard_CC = np.full((num, num), np.nan)
    for i, j in combinations(range(num), 2):
        both = ~np.isnan(scores_CK[i]) & ~np.isnan(scores_CK[j])
        if both.sum() > top:
            first, second = (np.argsort(-scores_CK[c][both], kind="stable")[:top] for c in (i, j))
            common = len(np.intersect1d(first, second))
            jaccard_CC[i, j] = jaccard_CC[j, i] = common / (2 * top - common)
    return jaccard_CC


def kendall_tau(scores_CK: np.ndarray) -> np.ndarray:
    """(C, C) of Kendall's tau-b (1945): the cosine of two columns' signs over all pairs of candidates.

    Pairs that a column scores alike have sign 0 and are left out of its norm. NaN where a column scores
    all the common candidates alike, or there are fewer than two.
    """
    known_CK = ~np.isnan(scores_CK)
    filled_CK = np.where(known_CK, scores_CK, 0).astype(np.float64)
    known_CP = pairs(known_CK, np.logical_and).astype(np.float64)
    sign_CP = np.sign(pairs(filled_CK, np.subtract)) * known_CP
    # squared norm of column i over the pairs that column j has scored too
    norm_CC = np.square(sign_CP) @ known_CP.T
    with np.errstate(invalid="ignore"):
        tau_CC: np.ndarray = (sign_CP @ sign_CP.T) / np.sqrt(norm_CC * norm_CC.T)
    return tau_CC


def pairs(values_CK: np.ndarray, combine: np.ufunc) -> np.ndarray:
    """(C, P): the function of every candidate's value and every other's."""
    combined: np.ndarray = combine(values_CK[:, :, None], values_CK[:, None, :])
    return combined.reshape(len(values_CK), -1)
