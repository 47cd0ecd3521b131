"""How scores lie before and after a selection. Pure; one column of one source at a time.

Dimensions: Q rows, K candidates a row, B bins. Scores that are not there are NaN and count nowhere.
"""

from dataclasses import dataclass

import numpy as np

from embedtrain.mining.limits import lowest

BINS = 40


@dataclass(frozen=True, slots=True)
class Spread:
    """How many scores fall into each bin, and their mean (None where there are none)."""

    counts: list[int]
    mean: float | None

    @property
    def num(self) -> int:
        """Scores counted."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class ColumnScores:
    """One column of one source. `edges` are the B + 1 bounds of the bins that all four share.

    Before: the positives of all mined rows, and their candidates less those known to be positives.
    After: the positives of the rows that stay, and the candidates kept as negatives. `above_before` and
    `above_after` count the candidates that score at least as high as their row's lowest-scored positive, in
    rows whose positives are all scored.
    """

    edges: list[float]
    positives_before: Spread
    positives_after: Spread
    candidates_before: Spread
    negatives_after: Spread
    above_before: int
    above_after: int


def column_scores(
    score_QK: np.ndarray,
    positive_scores: list[np.ndarray],
    before_QK: np.ndarray,
    kept_QK: np.ndarray,
    stays_Q: np.ndarray,
) -> ColumnScores | None:
    """Scores of the candidates that `before_QK` and `kept_QK` mark, and of the positives; None of nothing."""
    positives = known(np.concatenate([np.empty(0, np.float32), *positive_scores]))
    stayed = [line for line, stays in zip(positive_scores, stays_Q, strict=True) if stays]
    positives_after = known(np.concatenate([np.empty(0, np.float32), *stayed]))
    before, after = known(score_QK[before_QK]), known(score_QK[kept_QK])
    edges = bin_edges(np.concatenate([positives, before]))
    if edges is None:
        return None
    above_QK = score_QK >= lowest(positive_scores)[:, None]
    return ColumnScores(
        [float(edge) for edge in edges],
        spread(positives, edges),
        spread(positives_after, edges),
        spread(before, edges),
        spread(after, edges),
        int((above_QK & before_QK).sum()),
        int((above_QK & kept_QK).sum()),
    )


def known(scores: np.ndarray) -> np.ndarray:
    """Those that are not NaN, flat."""
    return scores[~np.isnan(scores)]


def bin_edges(scores: np.ndarray) -> np.ndarray | None:
    """`BINS` bins of one width over all scores, or over one unit where all are equal; None of nothing."""
    if not len(scores):
        return None
    low, high = float(scores.min()), float(scores.max())
    return np.linspace(low, high, BINS + 1) if low < high else np.linspace(low - 0.5, low + 0.5, BINS + 1)


def spread(scores: np.ndarray, edges: np.ndarray) -> Spread:
    """Counts in the bins; the last one holds its upper edge too."""
    counts, _ = np.histogram(scores.astype(np.float64), edges)
    return Spread(counts.tolist(), float(scores.mean(dtype=np.float64)) if len(scores) else None)
