"""Judges by cosine: vectors from the store, an exact or approximate search, and float64 dot products.

D dims of a vector.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from embedtrain.config.retrievers import Approximate
from embedtrain.data.store.arrays import make_array
from embedtrain.mining.judges.inquiry import UNIT_ROWS, Inquiry, score_lines
from embedtrain.mining.judges.writers import Writer, Written, wanted_of
from embedtrain.mining.sharing import first_makes
from embedtrain.search import dot
from embedtrain.search.units import Rankings, search_units
from embedtrain.vectors import fill_store, read_vectors

BLOCK = 8192  # vectors that are copied at a time


@dataclass(frozen=True, slots=True)
class Means:
    """Where vectors are kept and how they are made and searched: nothing here changes an exact result."""

    store: Path
    tokens_per_batch: int
    device: str = "cpu"
    approximate: Approximate | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class VectorScores:
    """Memory maps of the queries (Q, D) and of the wanted documents (W, D)."""

    queries_QD: np.ndarray
    documents_WD: np.ndarray
    wanted: np.ndarray
    counts: Counter[str]
    rankings: Rankings | None = None

    @property
    def facts(self) -> dict[str, object]:
        """Texts that were encoded and those the store had; parts of the search."""
        facts: dict[str, object] = dict(self.counts)
        if self.rankings is None:
            return facts
        facts |= {"searches_made": self.rankings.made, "searches_found": self.rankings.found}
        return facts if self.rankings.recall is None else facts | {"recall": self.rankings.recall}

    def found(self, unit: int) -> np.ndarray:
        """ids_BK of the unit's rows."""
        assert self.rankings is not None
        return self.rankings.block(unit)[0]

    def scores(self, first_row: int, ids_BK: np.ndarray) -> np.ndarray:
        """Cosines: the very scores of the search."""
        return score_lines(self._score, first_row, ids_BK)

    def _score(self, row: int, ids: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self.wanted, ids)
        return dot(self.queries_QD[row][None, :], self.documents_WD[places])


@dataclass(frozen=True, slots=True)
class VectorJudge:
    """A model whose vectors are compared by cosine."""

    column: str
    writer: Writer
    means: Means

    def read(self, inquiry: Inquiry) -> VectorScores:
        """Encode the queries and the wanted documents; only texts the store lacks."""
        counts: Counter[str] = Counter()
        queries = self._matrix(inquiry, "queries", [self.writer.queries(inquiry)], counts)
        documents = self._matrix(inquiry, "documents", list(self.writer.documents(inquiry)), counts)
        return VectorScores(queries, documents, wanted_of(inquiry), counts)

    def search(self, inquiry: Inquiry, k: int) -> VectorScores:
        """Encode, and find the nearest."""
        ready, processes, approximate = self.read(inquiry), inquiry.processes, self.means.approximate
        search = search_units
        if approximate is not None:
            from embedtrain.search.approximate import approximate_units

            search = partial(approximate_units, approximate=approximate, seed=self.means.seed)
        rankings = search(
            ready.queries_QD,
            ready.documents_WD[: inquiry.corpus.num_searched],
            k,
            inquiry.folder_of(self.column) / "units",
            rank=processes.rank,
            world=processes.world,
            query_block=UNIT_ROWS,
            device=self.means.device,
            label=f"{inquiry.name}: search by {self.column}",
        )
        return VectorScores(ready.queries_QD, ready.documents_WD, ready.wanted, ready.counts, rankings)

    def _matrix(
        self, inquiry: Inquiry, part: str, written: Sequence[Written], counts: Counter[str]
    ) -> np.ndarray:
        """(texts, D) vectors as a memory map of a file that all processes read."""
        folder, label = inquiry.folder_of(self.column), f"{inquiry.name}: {part} by {self.column}"
        paths = [folder / f"{part}-{one.recipe.side}.npy" for one in written]
        for path, one in zip(paths, written, strict=True):
            counts.update(self._fill(inquiry, path, one, label))
        if len(paths) > 1:
            places = [one.places for one in written]
            paths = [first_makes(folder / f"{part}.npy", inquiry.processes, partial(join, paths, places))]
        return np.asarray(np.load(paths[0], mmap_mode="r"))

    def _fill(self, inquiry: Inquiry, path: Path, written: Written, label: str) -> dict[str, int]:
        """Encode what the store lacks, each process its share; the first one writes the file."""
        recipe, means, processes = written.recipe, self.means, inquiry.processes
        filled = fill_store(
            written.encoder,
            written.texts,
            recipe,
            means.store,
            instructions=written.instructions,
            tokens_per_batch=means.tokens_per_batch,
            label=label,
            rank=processes.rank,
            world=processes.world,
        )

        def gather(out: Path) -> None:
            read_vectors(means.store / recipe.name, filled.keys_N, written.encoder.dim, out, recipe.dtype)

        first_makes(path, processes, gather)
        return {
            "texts_encoded": filled.made,
            "texts_stored": filled.found,
            "shards_encoded": filled.shards_made,
            "shards_stored": filled.shards_found,
        }


def join(paths: Sequence[Path], places: Sequence[np.ndarray], out: Path) -> None:
    """One file of vectors from several, each with the places of its lines."""
    parts = [np.load(path, mmap_mode="r") for path in paths]
    shape = (sum(map(len, parts)), parts[0].shape[1])
    joined = make_array(out, parts[0].dtype, shape)
    for part, place in zip(parts, places, strict=True):
        for start in range(0, len(part), BLOCK):
            joined[place[start : start + BLOCK]] = part[start : start + BLOCK]
    joined.flush()
