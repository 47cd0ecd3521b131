"""Keys of the texts of rows, and which of them several rows have: only such rows can conflict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.data.rows import Row, text_key
from embedtrain.data.store import RowStore

Numbers = np.ndarray
"""int64, of one dimension."""


@dataclass(frozen=True, slots=True, eq=False)
class RowKeys:
    """Keys of the texts of N rows, end to end in `keys`; row i's are `keys[starts[i]:starts[i + 1]]`."""

    keys: Numbers
    starts: Numbers

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """(keys of the rows, end to end; how many each row has)."""
        counts = self.starts[rows + 1] - self.starts[rows]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return self.keys[np.repeat(self.starts[rows] - ends + counts, counts) + np.arange(total)], counts


def row_keys(rows: Sequence[Row]) -> RowKeys:
    """Keys of each row's query and positives; those of rows on disk without reading a text."""
    if isinstance(rows, RowStore):
        return stored_keys(rows)
    texts = [(row.query, *row.positives) for row in rows]
    starts = np.concatenate([[0], np.cumsum([len(t) for t in texts], dtype=np.int64)])
    keys = np.array([text_key(text) for group in texts for text in group], dtype=np.int64)
    return RowKeys(keys, starts.astype(np.int64))


def stored_keys(store: RowStore) -> RowKeys:
    """Of each row, the key of its query, then those of its positives."""
    starts = store.positive_starts + np.arange(len(store) + 1)
    keys = np.empty(int(starts[-1]), dtype=np.int64)
    is_query = np.zeros(len(keys), dtype=bool)
    is_query[starts[:-1]] = True
    keys[is_query] = store.keys_M[store.query_N]
    keys[~is_query] = store.keys_M[store.positive_P]
    return RowKeys(keys, starts)


def shared_keys(sources: Iterable[RowKeys]) -> RowKeys:
    """Of the rows of all sources, end to end: their keys that come again, as numbers from 0, once a row."""
    together = concatenate(sources)
    repeated = repeats(together.keys)
    if not len(repeated):
        return no_keys(len(together))
    places = np.searchsorted(repeated, together.keys)
    places[places == len(repeated)] = 0
    known = repeated[places] == together.keys
    owners = np.repeat(np.arange(len(together)), np.diff(together.starts))[known]
    owners, numbers = np.divmod(np.unique(owners * len(repeated) + places[known]), len(repeated))
    return RowKeys(numbers, np.searchsorted(owners, np.arange(len(together) + 1)))


def no_keys(num_rows: int) -> RowKeys:
    """Rows without a key."""
    return RowKeys(np.zeros(0, dtype=np.int64), np.zeros(num_rows + 1, dtype=np.int64))


def concatenate(sources: Iterable[RowKeys]) -> RowKeys:
    """The rows of all sources, end to end."""
    parts = list(sources)
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    keys = np.concatenate([part.keys for part in parts])
    return RowKeys(keys, np.concatenate([[0], np.cumsum(counts)]))


def repeats(values: Numbers) -> Numbers:
    """The values that come more than once, each once, ascending."""
    ordered = np.sort(values)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
