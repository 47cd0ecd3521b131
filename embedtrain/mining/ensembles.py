"""Columns made of several: the mean of normalised scores, and reciprocal rank fusion. Pure.

Q rows, K candidates a row, E different documents among a row's candidates and positives, C columns.

Teachers' scores have scales of their own, so they are made alike within a row. A document counts once,
however often it is listed. It has an ensemble's score only where every column has one of it: normalising and
ranking leave the others out, and their score is NaN.
"""

from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from embedtrain.config.retrievers import Ensemble, EnsembleMean, EnsembleRanks
from embedtrain.mining.tables import Column


def ensemble_column(
    ensemble: Ensemble,
    columns: Sequence[Column],
    ids_QK: np.ndarray,
    positive_ids: Sequence[np.ndarray],
) -> Column:
    """The ensemble of some rows' columns, given in the order of `ensemble.of`.

    `ids_QK` are the candidates, -1 for none; `positive_ids` the documents of each row's positives.
    """
    score_QK = np.full(ids_QK.shape, np.nan, np.float32)
    positive_scores = []
    for number, positives in enumerate(positive_ids):
        listed = np.flatnonzero(ids_QK[number] >= 0)
        scores_CE = np.stack(
            [np.concatenate([c.score_QK[number][listed], c.positive_scores[number]]) for c in columns]
        )
        fused_E = fuse_row(ensemble, np.concatenate([ids_QK[number][listed], positives]), scores_CE)
        score_QK[number, listed] = fused_E[: len(listed)]
        positive_scores.append(fused_E[len(listed) :])
    return Column(score_QK, positive_scores)


def fuse_row(ensemble: Ensemble, ids_E: np.ndarray, scores_CE: np.ndarray) -> np.ndarray:
    """float32 (E): a score for each listed document; NaN where a column has none."""
    fused_E = np.full(len(ids_E), np.nan, np.float32)
    known_E = np.isfinite(scores_CE).all(axis=0)
    if known_E.any():
        _, first, inverse = np.unique(ids_E[known_E], return_index=True, return_inverse=True)
        fused_E[known_E] = combine(ensemble, scores_CE[:, known_E][:, first].astype(np.float64))[inverse]
    return fused_E


@singledispatch
def combine(ensemble: Ensemble, scores_CE: np.ndarray) -> np.ndarray:
    """float64 (E) of complete float64 scores, each document once."""
    raise TypeError(f"no ensemble of kind {ensemble.kind}")


@combine.register
def weighted_mean(ensemble: EnsembleMean, scores_CE: np.ndarray) -> np.ndarray:
    """Σ w · (s - mean) / deviation over Σ w; a column that says the same of all counts as 0."""
    weights_C = np.array(ensemble.weights or [1.0] * len(scores_CE))
    spread_C = np.ptp(scores_CE, axis=1, keepdims=True)
    deviation_C = np.where(spread_C > 0, scores_CE.std(axis=1, keepdims=True), 1.0)
    normal_CE = np.where(spread_C > 0, (scores_CE - scores_CE.mean(axis=1, keepdims=True)) / deviation_C, 0.0)
    fused_E: np.ndarray = weights_C @ normal_CE / weights_C.sum()
    return fused_E


@combine.register
def reciprocal_ranks(ensemble: EnsembleRanks, scores_CE: np.ndarray) -> np.ndarray:
    """Σ 1 / (k + rank) (Cormack et al. 2009); the rank is 1 and how many score higher, so equals share it."""
    ordered_CE = np.sort(-scores_CE, axis=1)
    ranks_CE = [
        np.searchsorted(line, -scores, "left") for line, scores in zip(ordered_CE, scores_CE, strict=True)
    ]
    fused_E: np.ndarray = (1.0 / (ensemble.k + 1 + np.stack(ranks_CE))).sum(axis=0)
    return fused_E
