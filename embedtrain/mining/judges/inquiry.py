"""What a judge is asked about one source, and what it answers.

B rows of a block, K documents a row.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from embedtrain.config.sources import Source
from embedtrain.data.store import RowStore
from embedtrain.dist import Processes
from embedtrain.mining.corpus import Corpus

UNIT_ROWS = 1024  # rows that are searched, fused and written at a time


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The rows of one source and its documents; all processes ask the same.

    `folder` is for the source's unfinished work, shared by all processes. Only documents `wanted` (ascending
    int64 ids) will be scored; absent means all.
    """

    name: str
    source: Source
    rows: RowStore
    corpus: Corpus
    folder: Path
    processes: Processes
    wanted: np.ndarray | None = None

    def folder_of(self, column: str) -> Path:
        """Where the judge of this column works."""
        return self.folder / "judges" / column


class Answers(Protocol):
    """Scores of any documents; every process may ask for any."""

    @property
    def facts(self) -> dict[str, object]:
        """What was made and what was there already."""

    def scores(self, first_row: int, ids_BK: np.ndarray) -> np.ndarray:
        """float64 (B, K): row `first_row` and the B - 1 after it, each with its documents; NaN for id -1."""


class Found(Answers, Protocol):
    """The same after a search."""

    def found(self, unit: int) -> np.ndarray:
        """ids_BK int64 of rows unit * UNIT_ROWS and following, best first; -1 where a row has fewer."""


class Judge(Protocol):
    """A retriever or teacher that was opened; it serves all sources."""

    @property
    def column(self) -> str:
        """Name of its column."""

    def read(self, inquiry: Inquiry) -> Answers:
        """Make ready to score the wanted documents. Every process calls it."""

    def search(self, inquiry: Inquiry, k: int) -> Found:
        """Find the k best documents of each row. Every process calls it and does its share."""


def score_lines(score_row: "RowScores", first_row: int, ids_BK: np.ndarray) -> np.ndarray:
    """float64 (B, K), row by row; NaN for id -1."""
    scores_BK = np.full(ids_BK.shape, np.nan)
    for number, ids in enumerate(ids_BK):
        scores_BK[number, ids >= 0] = score_row(first_row + number, ids[ids >= 0])
    return scores_BK


class RowScores(Protocol):
    """Scores of one row."""

    def __call__(self, row: int, ids: np.ndarray, /) -> np.ndarray:
        """float64 scores of these documents."""
