"""BM25 as a judge."""

from dataclasses import dataclass

import numpy as np

from embedtrain.config.retrievers import BM25Judge
from embedtrain.data.store import RowStore
from embedtrain.mining.corpus import query_texts
from embedtrain.mining.judges.inquiry import UNIT_ROWS, Inquiry, score_lines
from embedtrain.search import BM25Index
from embedtrain.search.units import Rankings, bm25_units


@dataclass(frozen=True, slots=True)
class WordScores:
    """An index of all documents, and the rows that ask."""

    index: BM25Index
    rows: RowStore
    rankings: Rankings | None = None

    @property
    def facts(self) -> dict[str, object]:
        """Parts of the search."""
        found = self.rankings
        return {} if found is None else {"searches_made": found.made, "searches_found": found.found}

    def found(self, unit: int) -> np.ndarray:
        """ids_BK of the unit's rows; documents without a word of the query are not found."""
        assert self.rankings is not None
        ids_BK, scores_BK = self.rankings.block(unit)
        return np.where(scores_BK > 0, ids_BK, -1)

    def scores(self, first_row: int, ids_BK: np.ndarray) -> np.ndarray:
        """BM25 of each row's documents."""
        return score_lines(self._score, first_row, ids_BK)

    def _score(self, row: int, ids: np.ndarray) -> np.ndarray:
        return self.index.scores(self.rows.text(self.rows.query_N[row]), ids)


@dataclass(frozen=True, slots=True)
class WordJudge:
    """BM25 with the run file's settings. Each process holds an index of its own."""

    judge: BM25Judge

    @property
    def column(self) -> str:
        """Name of its column."""
        return self.judge.column

    def read(self, inquiry: Inquiry) -> WordScores:
        """Index all documents: how rare a word is, is counted over all."""
        judge = self.judge
        index = BM25Index(inquiry.corpus.texts, k1=judge.k1, b=judge.b, stopwords=judge.stopwords)
        return WordScores(index, inquiry.rows)

    def search(self, inquiry: Inquiry, k: int) -> WordScores:
        """Index, and find."""
        ready, processes = self.read(inquiry), inquiry.processes
        rankings = bm25_units(
            ready.index,
            query_texts(inquiry.rows),
            k,
            inquiry.folder_of(self.column) / "units",
            num_searched=inquiry.corpus.num_searched,
            rank=processes.rank,
            world=processes.world,
            query_block=UNIT_ROWS,
            label=f"{inquiry.name}: search by {self.column}",
        )
        return WordScores(ready.index, inquiry.rows, rankings)
