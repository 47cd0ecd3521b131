"""Ensembles of columns against loops, and what they do where a column has no score."""

import math

import numpy as np
import pytest

from embedtrain.config.retrievers import Ensemble, EnsembleMean, EnsembleRanks
from embedtrain.mining.ensembles import ensemble_column
from embedtrain.mining.tables import Column

MEAN = EnsembleMean(kind="mean", name="all", of=("a", "b", "c"))
WEIGHTED = EnsembleMean(kind="mean", name="all", of=("a", "b", "c"), weights=(1.0, 0.5, 3.0))
RANKS = EnsembleRanks(kind="rrf", name="all", of=("a", "b", "c"))
STEEP = EnsembleRanks(kind="rrf", name="all", of=("a", "b", "c"), k=1)


def slow_row(ensemble: Ensemble, documents: dict[int, list[float]]) -> dict[int, float]:
    """A row's documents and their score in each column, in loops."""
    known = {id: scores for id, scores in documents.items() if not any(math.isnan(s) for s in scores)}
    fused = {id: math.nan if id not in known else 0.0 for id in documents}
    for column in range(len(ensemble.of)):
        values = [scores[column] for scores in known.values()]
        for id, scores in known.items():
            score = scores[column]
            if isinstance(ensemble, EnsembleRanks):
                fused[id] += 1 / (ensemble.k + 1 + sum(value > score for value in values))
                continue
            weights = ensemble.weights or (1.0,) * len(ensemble.of)
            mean = math.fsum(values) / len(values)
            deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
            alike = len(set(values)) == 1
            fused[id] += 0.0 if alike else weights[column] / sum(weights) * (score - mean) / deviation
    return fused


def ragged_rows(seed: int) -> tuple[np.ndarray, list[np.ndarray], list[Column]]:
    """Rows with duplicates, empty lists, ties, missing scores, and positives among the candidates."""
    rng = np.random.default_rng(seed)
    ids_QK = np.sort(rng.integers(0, 9, (12, 6)), axis=1)[:, ::-1].copy()
    ids_QK[3] = -1
    ids_QK[5, 4:] = -1
    positives = [rng.choice(12, rng.integers(1, 4), replace=False) for _ in ids_QK]
    columns = []
    for number in range(3):
        table = rng.normal(size=(12, 12)).astype(np.float32)
        table[:, :4] = np.round(table[:, :4])  # ties
        table[rng.random(table.shape) < 0.1] = np.nan
        table[7] = 0.1 if number else table[7]  # a row that a column finds all alike
        rows = np.arange(12)[:, None]
        scores = np.where(ids_QK >= 0, table[rows, ids_QK], np.nan)
        columns.append(Column(scores, [table[row, own] for row, own in enumerate(positives)]))
    return ids_QK, positives, columns


@pytest.mark.parametrize("ensemble", [MEAN, WEIGHTED, RANKS, STEEP])
@pytest.mark.parametrize("seed", range(4))
def test_ensembles_are_those_of_loops(ensemble: Ensemble, seed: int) -> None:
    ids_QK, positives, columns = ragged_rows(seed)
    fused = ensemble_column(ensemble, columns, ids_QK, positives)
    num_known = 0
    for row, own in enumerate(positives):
        documents = {
            int(id): [float(column.score_QK[row, place]) for column in columns]
            for place, id in enumerate(ids_QK[row])
            if id >= 0
        }
        of_positives = {
            int(id): [float(column.positive_scores[row][place]) for column in columns]
            for place, id in enumerate(own)
        }
        expected = slow_row(ensemble, documents | of_positives)
        wanted = [expected[int(id)] if id >= 0 else math.nan for id in ids_QK[row]]
        np.testing.assert_allclose(fused.score_QK[row], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            fused.positive_scores[row], [expected[int(id)] for id in own], rtol=1e-5, atol=1e-6
        )
        num_known += int(np.isfinite(wanted).sum())
    assert num_known > 20
    assert fused.score_QK.dtype == fused.positive_scores[0].dtype == np.float32


def test_a_columns_scale_does_not_matter() -> None:
    ids_QK, positives, columns = ragged_rows(1)
    stretched = [Column(columns[0].score_QK * 100 - 7, [p * 100 - 7 for p in columns[0].positive_scores])]
    for ensemble in (MEAN, RANKS):
        one, other = (
            ensemble_column(ensemble, [first, *columns[1:]], ids_QK, positives)
            for first in (columns[0], *stretched)
        )
        np.testing.assert_allclose(one.score_QK, other.score_QK, atol=1e-4)


def test_a_document_without_one_score_has_none_and_moves_no_other() -> None:
    one = Column(np.array([[3.0, 2.0, np.nan]], np.float32), [np.array([4.0], np.float32)])
    two = Column(np.array([[1.0, 2.0, 9.0]], np.float32), [np.array([3.0], np.float32)])
    pair = EnsembleRanks(kind="rrf", name="all", of=("a", "b"), k=1)
    fused = ensemble_column(pair, [one, two], np.array([[5, 6, 7]]), [np.array([8])])
    np.testing.assert_allclose(fused.score_QK, [[1 / 3 + 1 / 4, 1 / 4 + 1 / 3, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(fused.positive_scores[0], [1.0], rtol=1e-6)
