"""Scores of one source, in units of rows: each a file, so that a kill costs one unit; then whole columns.

Dimensions: Q mined rows, K candidates a row, B rows of a unit, P positives of a row.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from embedtrain.artifacts import write_atomic
from embedtrain.config.retrievers import Ensemble
from embedtrain.data.store import RowStore
from embedtrain.mining.corpus import Corpus
from embedtrain.mining.ensembles import ensemble_column
from embedtrain.mining.tables import Column, Mined
from embedtrain.mining.teachers import Answers


@dataclass(frozen=True)
class Candidates:
    """What was mined for a source, and what of it is scored: `rows` are the mined ones, in their order."""

    name: str
    rows: RowStore
    mined: Mined
    corpus: Corpus
    first_candidates: int | None

    @cached_property
    def ids_QK(self) -> np.ndarray:
        """Documents to score, -1 for none."""
        ids_QK: np.ndarray = self.mined.ids_QK.copy()
        ids_QK[:, self.first_candidates :] = -1
        return ids_QK if self.first_candidates else self.mined.ids_QK

    @cached_property
    def positive_ids(self) -> list[np.ndarray]:
        """Documents that are each row's positives."""
        ids = self.corpus.ids(self.rows.keys_M[self.rows.positive_P])
        return np.split(ids, self.rows.positive_starts[1:-1])

    @cached_property
    def pairs_Q(self) -> np.ndarray:
        """Pairs of query and document to score for each row."""
        pairs_Q: np.ndarray = (self.ids_QK >= 0).sum(axis=1) + np.diff(self.rows.positive_starts)
        return pairs_Q

    @property
    def wanted(self) -> np.ndarray:
        """Documents that need a score, ascending."""
        ids = self.ids_QK
        return np.unique(np.concatenate([ids[ids >= 0], *self.positive_ids]).astype(np.int64))

    def asked(self, rows: slice) -> np.ndarray:
        """ids (B, K + P): the rows' candidates, then their positives, -1 for none."""
        positives = self.positive_ids[rows]
        width = max(map(len, positives), default=0)
        padded = [np.pad(own, (0, width - len(own)), constant_values=-1) for own in positives]
        return np.concatenate([self.ids_QK[rows], np.array(padded, np.int64)], axis=1)


@dataclass(frozen=True)
class Units:
    """The files of one source and teacher; how they are cut depends on the pairs alone."""

    folder: Path
    candidates: Candidates
    unit_pairs: int

    @cached_property
    def slices(self) -> list[slice]:
        """The rows of each unit: a row belongs to the unit that the pairs before it have reached."""
        before_Q = np.cumsum(self.candidates.pairs_Q) - self.candidates.pairs_Q
        starts = np.flatnonzero(np.diff(before_Q // self.unit_pairs, prepend=-1)).tolist()
        return [slice(*edges) for edges in zip(starts, [*starts[1:], len(before_Q)], strict=True)]

    @cached_property
    def paths(self) -> list[Path]:
        """The file of each unit."""
        return [self.folder / f"{number:06d}.npy" for number in range(len(self.slices))]

    @property
    def missing(self) -> list[int]:
        """Numbers of the units whose file is not there."""
        return [number for number, path in enumerate(self.paths) if not path.exists()]

    def num_pairs(self, number: int) -> int:
        """Pairs to score in a unit."""
        return int(self.candidates.pairs_Q[self.slices[number]].sum())

    def write(self, number: int, answers: Answers) -> None:
        """Score a unit; its file is whole or absent."""
        rows = self.slices[number]
        scores = answers.scores(rows.start, self.candidates.asked(rows)).astype(np.float32)
        buffer = io.BytesIO()
        np.save(buffer, scores)
        write_atomic(self.paths[number], buffer.getvalue())

    def read(self) -> Column:
        """All units as one column."""
        width = self.candidates.ids_QK.shape[1]
        parts = [np.load(path) for path in self.paths]
        score_QK = np.concatenate([np.empty((0, width), np.float32), *(part[:, :width] for part in parts)])
        return Column(score_QK, list(self._positives(parts, width)))

    def _positives(self, parts: list[np.ndarray], width: int) -> Iterator[np.ndarray]:
        lengths = iter(np.diff(self.candidates.rows.positive_starts).tolist())
        for part in parts:
            for line in part[:, width:]:
                yield line[: next(lengths)].copy()


def with_ensembles(
    candidates: Candidates, teachers: Mapping[str, Column], ensembles: Iterable[Ensemble]
) -> dict[str, Column]:
    """The teachers' columns, and those made of them, of the retrievers' and of earlier ensembles'."""
    mined, made = candidates.mined, dict(teachers)
    for ensemble in ensembles:
        parts = [(mined.columns | made)[name] for name in ensemble.of]
        made[ensemble.name] = ensemble_column(ensemble, parts, mined.ids_QK, candidates.positive_ids)
    return made


def cut_rows(columns: Mapping[str, Column], rows: slice) -> dict[str, Column]:
    """Some rows of all columns."""
    return {
        name: Column(column.score_QK[rows], column.positive_scores[rows]) for name, column in columns.items()
    }


def column_facts(candidates: Candidates, column: Column) -> dict[str, object]:
    """How many pairs have a score, and in what share of rows the positives all score above the others.

    Rows without other candidates, or with a positive without a score, have no part in that share.
    """
    first = []
    for ids_K, score_K, own, scores in zip(
        candidates.mined.ids_QK,
        column.score_QK,
        candidates.positive_ids,
        column.positive_scores,
        strict=True,
    ):
        others = score_K[(ids_K >= 0) & ~np.isin(ids_K, own) & np.isfinite(score_K)]
        if len(others) and np.isfinite(scores).all():
            first.append(scores.min() > others.max())
    scored = [np.isfinite(column.score_QK).sum(), *(np.isfinite(p).sum() for p in column.positive_scores)]
    return {
        "scored_pairs": int(sum(scored)),
        "positives_first_fraction": round(float(np.mean(first)), 4) if first else None,
    }
