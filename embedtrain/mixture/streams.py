"""Streams of rows into batches: turns of sources, and what each turn takes from its source."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.config.sources import Mixture, SemiHomogeneous
from embedtrain.mixture.passes import Passes
from embedtrain.mixture.schedule import Schedule, Shares, make_schedule, split_units

Sizes = Mapping[str, int]
"""By source."""
POOLED = (1,)
"""Sets the orders of pooled rows apart from those of whole batches."""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """`turns` turns a step; a turn of source s takes the next `widths_S[s]` rows of its passes."""

    schedule: Schedule
    passes: tuple[Passes, ...]
    widths_S: np.ndarray
    turns: int

    def draw(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(step, source, row) of the rows of the steps `start` to `stop`, ascending by step."""
        source, index = self.schedule.window(start * self.turns, stop * self.turns)
        counts = self.widths_S[source]
        ends = np.cumsum(counts)
        rows = np.empty(int(ends[-1]), dtype=np.int64)
        for number in np.unique(source).tolist():
            turns, width = np.flatnonzero(source == number), int(self.widths_S[number])
            places = (ends - counts)[turns, None] + np.arange(width)
            rows[places] = self.passes[number].batches(index[turns], width)
        steps = start + np.arange(len(source)) // self.turns
        return np.repeat(steps, counts), np.repeat(source, counts), rows


def make_streams(
    mixture: Mixture, shares: Shares, sizes: Sizes, batch_sizes: Sizes, steps: int, seed: int
) -> list[Stream]:
    """One stream, or two where a share of every batch is pooled. Raises UserError where rows are too few."""
    streams = []
    for widths, turns, stream in layout(mixture, batch_sizes):
        counts = split_units(shares, steps * turns)
        for name, count in counts.items():
            if count and widths[name] > sizes[name]:
                raise UserError(
                    f"source '{name}': a batch holds {widths[name]} of its rows, "
                    f"and it has only {sizes[name]}"
                )
        passes = tuple(Passes(name, sizes[name], seed, stream) for name in counts)
        widths_S = np.array([widths[name] for name in counts], dtype=np.int64)
        streams.append(Stream(make_schedule(counts, seed), passes, widths_S, turns))
    return streams


def layout(mixture: Mixture, batch_sizes: Sizes) -> list[tuple[Sizes, int, tuple[int, ...]]]:
    """For each stream: rows that a turn takes of each source, turns a step, which orders."""
    if mixture.batches.kind == "one_source":
        return [(batch_sizes, 1, ())]
    (batch_size,) = set(batch_sizes.values())
    main = main_rows(mixture.batches, batch_size) if mixture.batches.kind == "semi_homogeneous" else 0
    pooled = (dict.fromkeys(batch_sizes, 1), batch_size - main, POOLED)
    return [(dict.fromkeys(batch_sizes, main), 1, ()), pooled] if main else [pooled]


def main_rows(batches: SemiHomogeneous, batch_size: int) -> int:
    """Rows of a batch's main source: at least one, and at least one is pooled."""
    return min(max(1, round(batches.main_fraction * batch_size)), batch_size - 1)
