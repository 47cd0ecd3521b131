"""The plan of a run: the global batch of any step, without those before it."""

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embedtrain.config.sources import Mixture
from embedtrain.mixture.keys import RowKeys, no_keys, shared_keys
from embedtrain.mixture.schedule import source_shares
from embedtrain.mixture.shares import Share, stream_shares
from embedtrain.mixture.streams import make_streams
from embedtrain.mixture.unique import Swaps

SEVERAL = "several"
"""Stands for the source of a batch that has more than one."""
BLOCK_ROWS = 1 << 16
"""Rows planned at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows (int64 numbers) of one source in a global batch; the first of them stands there at `first`."""

    source: str
    rows: np.ndarray
    first: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedBatch:
    """The global batch of a step: for each of its B rows the source, as a place in `names`, and the row.

    `swapped` of its rows stand in for others.
    """

    step: int
    names: tuple[str, ...]
    source_B: np.ndarray
    row_B: np.ndarray
    swapped: int

    def __len__(self) -> int:
        return len(self.row_B)

    @property
    def source(self) -> str:
        """The one source's name, or SEVERAL."""
        first = self.source_B[0]
        return self.names[first] if bool((self.source_B == first).all()) else SEVERAL

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its rows cut where the source changes, end to end."""
        cuts = [0, *(np.flatnonzero(np.diff(self.source_B)) + 1).tolist(), len(self)]
        sources = self.source_B[cuts[:-1]].tolist()
        return tuple(
            Part(self.names[source], self.row_B[start:stop], start)
            for source, (start, stop) in zip(sources, pairwise(cuts), strict=True)
        )

    @property
    def row_ids(self) -> dict[str, list[int]]:
        """Numbers of its rows in their source, by source."""
        places = {name: self.source_B == number for number, name in enumerate(self.names)}
        return {name: self.row_B[here].tolist() for name, here in places.items() if here.any()}

    def local(self, rank: int, world: int) -> tuple[Part, ...]:
        """What process `rank` of `world` holds: a contiguous share, even to one row."""
        here = share(range(len(self)), rank, world)
        cuts = [(part, max(0, here.start - part.first), here.stop - part.first) for part in self.parts]
        return tuple(
            Part(part.source, part.rows[start:stop], part.first + start)
            for part, start, stop in cuts
            if start < min(stop, len(part))
        )


class Plan:
    """All global batches of a run, made when asked for: the same in any order, on any process."""

    def __init__(
        self,
        keys: Mapping[str, RowKeys],
        weights: Mapping[str, float],
        mixture: Mixture,
        batch_sizes: Mapping[str, int],
        steps: int,
        seed: int,
    ) -> None:
        """Find what can conflict. Raises UserError where a source cannot fill its part of a batch."""
        used = {name: rows for name, rows in keys.items() if weights[name] > 0}
        self.sizes = {name: len(rows) for name, rows in used.items()}
        self.names = tuple(used)
        self.steps = steps
        shares = source_shares(self.sizes, weights, mixture.size_exponent)
        self.streams = make_streams(mixture, shares, self.sizes, batch_sizes, steps, seed)
        shared = shared_keys(used.values()) if mixture.unique_texts else no_keys(sum(self.sizes.values()))
        self.swaps = Swaps(self.sizes, shared, seed)
        self.block_steps = max(1, BLOCK_ROWS // max(batch_sizes.values()))

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> PlannedBatch:
        step = range(self.steps)[step]
        return next(self.block(step, step + 1))

    def __iter__(self) -> Iterator[PlannedBatch]:
        return self.batches(0, self.steps)

    def batches(self, start: int, stop: int) -> Iterator[PlannedBatch]:
        """The batches of the steps `start` to `stop`, planned some thousand rows at a time."""
        for first in range(start, min(stop, self.steps), self.block_steps):
            yield from self.block(first, min(first + self.block_steps, stop, self.steps))

    def shares(self) -> dict[str, Share]:
        """What the run sees of each source."""
        return stream_shares(self.streams, self.sizes)

    def block(self, start: int, stop: int) -> Iterator[PlannedBatch]:
        """Batches planned together: the rows of all, in order of step, stream and source."""
        drawn = [stream.draw(start, stop) for stream in self.streams]
        step, source, row = (np.concatenate(columns) for columns in zip(*drawn, strict=True))
        stream = np.repeat(np.arange(len(drawn)), [len(rows) for *_, rows in drawn])
        order = np.lexsort((source, stream, step))
        step, source, row = step[order], source[order], row[order]
        swapped = self.swaps.apply(step, source, row)
        bounds = np.searchsorted(step, np.arange(start, stop + 1)).tolist()
        for number, (first, last) in enumerate(pairwise(bounds), start):
            yield PlannedBatch(
                number, self.names, source[first:last], row[first:last], swapped.get(number, 0)
            )


def share(rows: Sized, rank: int, world: int) -> slice:
    """The contiguous part of a batch's rows that process `rank` of `world` holds, even to one row."""
    return slice(len(rows) * rank // world, len(rows) * (rank + 1) // world)
