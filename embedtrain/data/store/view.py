"""Rows on disk, read as they are asked for: arrays of text ids for those who count, rows for those who read.

N rows, M texts, P positives and Q negatives of all rows.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self, overload

import numpy as np

from embedtrain.artifacts import hash_bytes, hash_json
from embedtrain.data.rows import NAMES, Row
from embedtrain.data.store.arrays import Strings, open_array


class RowStore(Sequence[Row]):
    """N rows in the files of a folder. What is read stays in memory only where a view has its own order."""

    def __init__(self, folder: Path, content: str, rows: np.ndarray | None = None) -> None:
        """Open what a `Builder` wrote; `content` is its hash, `rows` are the numbers of the rows to show."""
        self.folder, self.content, self.rows = folder, content, rows
        self.strings = Strings(folder, "texts")
        self.names = {name: Strings(folder, f"{name}_names") for name in NAMES}

    def __reduce__(self) -> tuple[type, tuple[Path, str, np.ndarray | None]]:
        """Pickled as the place of its files."""
        return type(self), (self.folder, self.content, self.rows)

    @cached_property
    def hash(self) -> str:
        """Hash of the rows that this shows."""
        if self.rows is None:
            return self.content
        return hash_json([self.content, hash_bytes(self.rows.tobytes())])

    def take(self, rows: np.ndarray) -> Self:
        """The rows of these numbers in this order, as a view."""
        numbers = np.ascontiguousarray(rows, np.int64)
        return type(self)(self.folder, self.content, numbers if self.rows is None else self.rows[numbers])

    # --- rows -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.array("query")) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> "Row | RowStore":
        """One row with its texts, or a view of several."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = index % len(self)
        return self._row(number if self.rows is None else int(self.rows[number]))

    def _row(self, number: int) -> Row:
        """The row with this number in the files."""
        positives, negatives = self._part("positives", number), self._part("negatives", number)
        score = float(self.array("score")[number])
        return Row(
            query=self.strings[int(self.array("query")[number])],
            positives=tuple(self.strings.take(self.array("positives")[positives])),
            negatives=tuple(self.strings.take(self.array("negatives")[negatives])),
            positive_scores=self._scores("positive_scores", positives),
            negative_scores=self._scores("negative_scores", negatives),
            score=None if np.isnan(score) else score,
            **{name: self._name(name, number) for name in NAMES},
        )

    def _part(self, name: str, number: int) -> slice:
        starts = self.array(f"{name}_starts")
        return slice(int(starts[number]), int(starts[number + 1]))

    def _scores(self, name: str, part: slice) -> tuple[float, ...] | None:
        scores = self.array(name)[part].tolist()
        return None if not scores or np.isnan(scores[0]) else tuple(scores)

    def _name(self, name: str, number: int) -> str | None:
        code = int(self.array(name)[number])
        return None if code < 0 else self.names[name][code]

    # --- texts ----------------------------------------------------------------------------------------------

    def text(self, number: int) -> str:
        """The text of this id."""
        return self.strings[int(number)]

    def texts(self, ids: np.ndarray) -> list[str]:
        """The texts of these ids."""
        return self.strings.take(ids)

    @property
    def num_texts(self) -> int:
        """Different texts in the files, those of rows that a view leaves out among them."""
        return len(self.strings)

    @property
    def keys_M(self) -> np.ndarray:
        """int64 `text_key` of each text."""
        return self.array("texts_keys")

    # --- arrays ---------------------------------------------------------------------------------------------

    @cached_property
    def query_N(self) -> np.ndarray:
        """int64 text id of each row's query."""
        return self._of_rows("query")

    @cached_property
    def score_N(self) -> np.ndarray:
        """float64 grade of each row, NaN where it has none."""
        return self._of_rows("score")

    @cached_property
    def positive_starts(self) -> np.ndarray:
        """int64 (N + 1): row i's positives are `positive_P[positive_starts[i]:positive_starts[i + 1]]`."""
        return self._starts("positives")

    @cached_property
    def positive_P(self) -> np.ndarray:
        """int64 text ids of the positives."""
        return self._items("positives", "positives")

    @cached_property
    def positive_score_P(self) -> np.ndarray:
        """float64 scores of the positives, NaN where a row has none."""
        return self._items("positives", "positive_scores")

    @cached_property
    def negative_starts(self) -> np.ndarray:
        """int64 (N + 1): row i's negatives are `negative_Q[negative_starts[i]:negative_starts[i + 1]]`."""
        return self._starts("negatives")

    @cached_property
    def negative_Q(self) -> np.ndarray:
        """int64 text ids of the negatives."""
        return self._items("negatives", "negatives")

    @cached_property
    def negative_score_Q(self) -> np.ndarray:
        """float64 scores of the negatives, NaN where a row has none."""
        return self._items("negatives", "negative_scores")

    @cached_property
    def label_N(self) -> np.ndarray:
        """int32 place of each row's label in `labels`, -1 for none."""
        return self._of_rows("label")

    @cached_property
    def task_N(self) -> np.ndarray:
        """int32 place of each row's task in `tasks`, -1 for none."""
        return self._of_rows("task")

    @cached_property
    def instruction_N(self) -> np.ndarray:
        """int32 place of each row's instruction in `instructions`, -1 for none."""
        return self._of_rows("instruction")

    @property
    def labels(self) -> Sequence[str]:
        """The different labels."""
        return self.names["label"]

    @property
    def tasks(self) -> Sequence[str]:
        """The different tasks."""
        return self.names["task"]

    @property
    def instructions(self) -> Sequence[str]:
        """The different instructions."""
        return self.names["instruction"]

    def array(self, name: str) -> np.ndarray:
        """The numbers in one of the folder's files, opened once; of all its rows, whatever a view shows."""
        if name not in self._opened:
            self._opened[name] = open_array(self.folder / f"{name}.npy")
        return self._opened[name]

    @cached_property
    def _opened(self) -> dict[str, np.ndarray]:
        return {}

    def _of_rows(self, name: str) -> np.ndarray:
        return self.array(name) if self.rows is None else self.array(name)[self.rows]

    def _starts(self, name: str) -> np.ndarray:
        starts = self.array(f"{name}_starts")
        if self.rows is None:
            return starts
        return np.concatenate([[0], np.cumsum(starts[self.rows + 1] - starts[self.rows])])

    def _items(self, lists: str, name: str) -> np.ndarray:
        if self.rows is None:
            return self.array(name)
        starts = self._starts(lists)
        shift = self.array(f"{lists}_starts")[self.rows] - starts[:-1]
        return self.array(name)[np.arange(starts[-1]) + np.repeat(shift, np.diff(starts))]
