"""Which candidates are most likely answers that nobody labelled. Pure.

A candidate's excess by a column is its score less that of its row's lowest-scored positive, in units of the
column's standard deviation over the source's candidates, so that cosines and logits compare. The worst
suspect is the one with the greatest excess by any column.

Dimensions: Q rows, K candidates a row, S suspects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.mining.limits import lowest
from embedtrain.mining.tables import Column


@dataclass(frozen=True, slots=True)
class Excess:
    """The greatest excess of each candidate, float64 (Q, K), −inf where no column tells; and its column."""

    excess_QK: np.ndarray
    column_QK: np.ndarray


def greatest_excess(columns: Sequence[Column], present_QK: np.ndarray) -> Excess:
    """How far each candidate stands above the positive, by the column that puts it highest."""
    best = Excess(np.full(present_QK.shape, -np.inf), np.zeros(present_QK.shape, np.int16))
    for place, column in enumerate(columns):
        scores = column.score_QK.astype(np.float64)
        unit = deviation(scores[present_QK])
        excess_QK = (scores - lowest(column.positive_scores)[:, None]) / unit
        higher_QK = present_QK & (excess_QK > best.excess_QK)
        best.excess_QK[higher_QK] = excess_QK[higher_QK]
        best.column_QK[higher_QK] = place
    return best


def deviation(scores: np.ndarray) -> float:
    """Standard deviation of the scores that are there; 1 where there is none, or all are equal."""
    known = scores[~np.isnan(scores)]
    return (float(known.std()) if len(known) else 0.0) or 1.0


def worst(excess: Excess, among_QK: np.ndarray, num: int) -> list[tuple[int, int]]:
    """(row, candidate) of the greatest excess among those marked, one a row, worst first, at most `num`."""
    excess_QK = np.where(among_QK, excess.excess_QK, -np.inf)
    if not excess_QK.size:
        return []
    place_Q = excess_QK.argmax(axis=1)
    excess_Q = excess_QK[np.arange(len(excess_QK)), place_Q]
    order_S = np.argsort(-excess_Q, kind="stable")[:num]
    return [(int(row), int(place_Q[row])) for row in order_S if np.isfinite(excess_Q[row])]
