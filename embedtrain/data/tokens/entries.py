"""Which strings the rows of a source need: each text in each form, once.

A form is a side and an instruction. An entry's code is `text id * number of forms + form`, so entries in the
order of their codes stand in the order of their texts. Dimensions: N rows, M texts, E entries, B queries, C
documents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from embedtrain.data.store import RowStore
from embedtrain.text import Formatted, SourceText, format_document, format_query

QUERY, DOCUMENT = 0, 1
ROWS_PER_RUN = 1 << 17


@dataclass(frozen=True)
class Entries:
    """The entries that the rows need, written as `text` says; negatives and queries only where wanted."""

    rows: RowStore
    text: SourceText
    negatives: bool

    @property
    def num_forms(self) -> int:
        """Sides times instructions, none included."""
        return 2 * (len(self.rows.instructions) + 1)

    @cached_property
    def shows_instruction(self) -> dict[int, bool]:
        """By side, whether its strings differ with the instruction."""
        query, document = ("{instruction}" in t for t in (self.text.query, self.text.document))
        return {QUERY: query, DOCUMENT: document or (query and self.text.instructed_documents_fraction > 0)}

    def query_codes(self, rows_B: np.ndarray | slice) -> np.ndarray:
        """Codes of the queries of these rows, int64 (B,)."""
        return self._codes(self.rows.query_N[rows_B], self.rows.instruction_N[rows_B], QUERY)

    def document_codes(self, texts_C: np.ndarray, rows_C: np.ndarray) -> np.ndarray:
        """Codes of documents by text id and row, int64 (C,); those of a symmetric source are queries."""
        side = QUERY if self.text.symmetric else DOCUMENT
        return self._codes(texts_C, self.rows.instruction_N[rows_C], side)

    def place_codes(self, rows_C: np.ndarray, places_C: np.ndarray) -> np.ndarray:
        """Codes of documents by row, and by place among the row's positives and then its negatives."""
        rows = self.rows
        positives, stops = rows.positive_starts[rows_C] + places_C, rows.positive_starts[rows_C + 1]
        negatives = rows.negative_starts[rows_C] + positives - stops
        is_positive = positives < stops
        texts_C = np.empty(len(rows_C), np.int64)
        texts_C[is_positive] = rows.positive_P[positives[is_positive]]
        texts_C[~is_positive] = rows.negative_Q[negatives[~is_positive]]
        return self.document_codes(texts_C, rows_C)

    def _codes(self, texts: np.ndarray, instructions: np.ndarray, side: int) -> np.ndarray:
        shown = (instructions.astype(np.int64) + 1) * self.shows_instruction[side]
        return texts.astype(np.int64) * self.num_forms + 2 * shown + side

    def format(self, codes_E: np.ndarray) -> tuple[list[Formatted], list[int]]:
        """The strings of these entries, and to how many tokens each is cut."""
        ids, forms = np.divmod(codes_E, self.num_forms)
        limits = [self.text.max_query_tokens, self.text.max_document_tokens]
        texts, keys = self.rows.texts(ids), self.rows.keys_M[ids].tolist()
        strings: list[Formatted] = []
        for text, key, form in zip(texts, keys, forms.tolist(), strict=True):
            instruction = self.rows.instructions[form // 2 - 1] if form > 1 else None
            if form % 2 == QUERY:
                strings.append(format_query(self.text, text, instruction))
            else:
                strings.append(format_document(self.text, text, key, instruction))
        return strings, [limits[form % 2] for form in forms.tolist()]

    def write_runs(self, folder: Path) -> list[np.ndarray]:
        """The codes of all rows as sorted runs on disk, so that memory does not grow with the rows."""
        runs = []
        for number, codes_E in enumerate(self._runs()):
            path = folder / f"run.{number:05d}.npy"
            np.save(path, codes_E)
            runs.append(np.load(path, mmap_mode="r"))
        return runs

    def _runs(self) -> Iterator[np.ndarray]:
        """Sorted codes of the rows, block by block, each once in its block."""
        for first in range(0, len(self.rows), ROWS_PER_RUN):
            block = slice(first, min(first + ROWS_PER_RUN, len(self.rows)))
            codes = [] if self.text.few_shot else [self.query_codes(block)]
            codes.append(self._block_documents(block, self.rows.positive_starts, self.rows.positive_P))
            if self.negatives:
                codes.append(self._block_documents(block, self.rows.negative_starts, self.rows.negative_Q))
            yield np.unique(np.concatenate(codes))

    def _block_documents(self, block: slice, starts: np.ndarray, texts: np.ndarray) -> np.ndarray:
        edges = starts[block.start : block.stop + 1]
        rows_C = np.repeat(np.arange(block.start, block.stop), np.diff(edges))
        return self.document_codes(texts[edges[0] : edges[-1]], rows_C)


def merge_runs(runs: Sequence[np.ndarray], first: int, stop: int) -> np.ndarray:
    """The codes from `first` below `stop` in any of the sorted runs, sorted, each once."""
    pieces = [run[slice(*np.searchsorted(run, (first, stop)))] for run in runs]
    return np.unique(np.concatenate([np.empty(0, np.int64), *pieces]))
