"""No row, and where asked no text, twice in a batch: what would repeat one is swapped by a seeded rule."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.mixture.keys import RowKeys

SWAP = 3
"""Sets the draw of swaps apart from other draws of the same seed and step."""
DRAWS = 32
"""Rows drawn one by one before all that fit are looked up."""


class Swaps:
    """Finds and mends repeats. Rows of all sources are numbered end to end; row n of all has `keys.of(n)`."""

    def __init__(self, sizes: Mapping[str, int], keys: RowKeys, seed: int) -> None:
        """`keys` are those that several rows have, as numbers from 0."""
        self.names = tuple(sizes)
        self.bounds = np.cumsum([0, *sizes.values()])
        self.keys = keys
        self.num_keys = int(keys.keys.max(initial=0)) + 1
        self.seed = seed

    def apply(self, step: np.ndarray, source: np.ndarray, row: np.ndarray) -> dict[int, int]:
        """Mend, in place, the rows of whole batches, ascending by step; returns how many each swaps."""
        number = row + self.bounds[source]
        swapped = {}
        for at in self.conflicts(step, number).tolist():
            start, stop = np.searchsorted(step, [at, at + 1])
            rows = number[start:stop].tolist()
            swapped[at] = self.mend(at, rows)
            row[start:stop] = rows - self.bounds[source[start:stop]]
        return swapped

    def conflicts(self, step: np.ndarray, number: np.ndarray) -> np.ndarray:
        """The steps, ascending, whose batches hold a row or a shared key twice."""
        first = int(step[0])
        keys, counts = self.keys.take(number)
        rows_twice = repeated_steps(step - first, number, len(self.keys))
        keys_twice = repeated_steps(np.repeat(step - first, counts), keys, self.num_keys)
        return np.union1d(rows_twice, keys_twice) + first

    def mend(self, step: int, rows: list[int]) -> int:
        """Swap, in place, each row that repeats something of an earlier one; returns how many.

        The other rows stay. The new row is of the same source and repeats nothing of the batch.
        """
        taken: set[int] = set()
        late = []
        for place, marks in enumerate(self.marks(np.array(rows))):
            if taken.isdisjoint(marks):
                taken.update(marks)
            else:
                late.append(place)
        for place in late:
            rows[place], marks = self.draw(step, place, rows, taken)
            taken.update(marks)
        return len(late)

    def marks(self, rows: np.ndarray) -> list[list[int]]:
        """For each row what no other row of the batch may have: its shared keys, and (below 0) itself."""
        keys, counts = self.keys.take(rows)
        known, bounds = keys.tolist(), [0, *np.cumsum(counts).tolist()]
        return [
            [~row, *known[start:stop]]
            for row, (start, stop) in zip(rows.tolist(), pairwise(bounds), strict=True)
        ]

    def draw(self, step: int, place: int, rows: list[int], taken: set[int]) -> tuple[int, list[int]]:
        """A row of the same source that has nothing of what is taken, by (seed, step, place); its marks."""
        generator = np.random.default_rng([self.seed, step, place, SWAP])
        source = int(np.searchsorted(self.bounds, rows[place], "right")) - 1
        start, stop = self.bounds[source : source + 2].tolist()
        for marks in self.marks(generator.integers(start, stop, DRAWS)):
            if taken.isdisjoint(marks):
                return ~marks[0], marks
        free = self.free(start, stop, taken)
        if not len(free):
            raise UserError(
                f"source '{self.names[source]}', step {step + 1}: none of its {stop - start} rows "
                f"completes a batch of {len(rows)} without a text or a row twice; lower batch_size"
            )
        [marks] = self.marks(generator.choice(free, 1))
        return ~marks[0], marks

    def free(self, start: int, stop: int, taken: set[int]) -> np.ndarray:
        """All rows from `start` to `stop` that have nothing of what is taken, ascending."""
        rows = np.arange(start, stop)
        keys, counts = self.keys.take(rows)
        marks = np.fromiter(taken, np.int64, len(taken))
        busy = np.repeat(rows, counts)[np.isin(keys, marks)]
        return np.setdiff1d(rows, np.concatenate([busy, ~marks[marks < 0]]))


def repeated_steps(step: np.ndarray, value: np.ndarray, num_values: int) -> np.ndarray:
    """Steps within which a value (below `num_values`) comes twice."""
    pairs = np.sort(step * num_values + value)
    return pairs[1:][pairs[1:] == pairs[:-1]] // num_values
