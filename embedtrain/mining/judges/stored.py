"""The rows themselves as a judge: their stored negatives and scores."""

from dataclasses import dataclass, field

import numpy as np

from embedtrain.config.retrievers import RowsJudge
from embedtrain.mining.judges.inquiry import UNIT_ROWS, Inquiry, score_lines


@dataclass(frozen=True, slots=True)
class StoredScores:
    """What the rows say of their own texts."""

    inquiry: Inquiry
    k: int = 0
    facts: dict[str, object] = field(default_factory=dict)

    def found(self, unit: int) -> np.ndarray:
        """The rows' first k negatives, the highest score first, as they stand where they have none."""
        rows = range(unit * UNIT_ROWS, min(len(self.inquiry.rows), (unit + 1) * UNIT_ROWS))
        ids_BK = np.full((len(rows), self.k), -1, np.int64)
        for number, row in enumerate(rows):
            ids, scores = self._negatives(row)
            best = ids[np.argsort(-scores, kind="stable")][: self.k]
            ids_BK[number, : len(best)] = best
        return ids_BK

    def scores(self, first_row: int, ids_BK: np.ndarray) -> np.ndarray:
        """The stored scores; NaN for documents that are none of the row's, and where it has no scores."""
        return score_lines(self._score, first_row, ids_BK)

    def _score(self, row: int, ids: np.ndarray) -> np.ndarray:
        parts = zip(self._negatives(row), self._positives(row), strict=True)
        known, scores = (np.concatenate(part) for part in parts)
        order = np.argsort(known, kind="stable")
        places = np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)
        return np.where(known[order[places]] == ids, scores[order[places]], np.nan)

    def _negatives(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.inquiry.rows
        part = slice(*rows.negative_starts[row : row + 2])
        return self._ids(rows.negative_Q[part]), rows.negative_score_Q[part]

    def _positives(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.inquiry.rows
        part = slice(*rows.positive_starts[row : row + 2])
        return self._ids(rows.positive_P[part]), rows.positive_score_P[part]

    def _ids(self, texts: np.ndarray) -> np.ndarray:
        return self.inquiry.corpus.ids(self.inquiry.rows.keys_M[texts])


@dataclass(frozen=True, slots=True)
class StoredJudge:
    """Reads the rows; opens no model."""

    judge: RowsJudge

    @property
    def column(self) -> str:
        """Name of its column."""
        return self.judge.column

    def read(self, inquiry: Inquiry) -> StoredScores:
        """Nothing is to be made."""
        return StoredScores(inquiry)

    def search(self, inquiry: Inquiry, k: int) -> StoredScores:
        """Nothing is to be searched."""
        return StoredScores(inquiry, k)
