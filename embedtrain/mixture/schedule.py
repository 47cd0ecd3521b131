"""Which source has which turn: every source evenly spread over the run, any window of it at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.data.rows import text_key

Shares = Mapping[str, Fraction]
PHASE = 2
"""Sets the draw of phases apart from other draws of the same seed and source."""


def source_shares(sizes: Mapping[str, int], weights: Mapping[str, float], size_exponent: float) -> Shares:
    """weight x rows^size_exponent of each source; exact for exponents 0 and 1."""
    shares = {
        name: Fraction(str(weights[name])) * Fraction(size**size_exponent) for name, size in sizes.items()
    }
    if not any(shares.values()):
        raise UserError("every source has weight 0; expected at least one above 0")
    return shares


def split_units(shares: Shares, total: int) -> dict[str, int]:
    """Units of each source in proportion to its share, summing to `total` (largest remainder).

    The earlier source wins a tie.
    """
    whole = sum(shares.values())
    quotas = {name: share * total / whole for name, share in shares.items()}
    counts = {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Turns of S sources: turn i of source s stands at time (i + phase) / count, in [0, 1).

    Sorted by (time, source), the turns of all sources are the schedule. Every source's share of every window
    is its share of the whole to within a turn or two.
    """

    counts_S: np.ndarray
    phases_S: np.ndarray

    def __len__(self) -> int:
        return int(self.counts_S.sum())

    def window(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, number among the source's own turns) of the turns `start` to `stop`.

        About t x count turns of each source lie before time t, to within one; so those before `early` number
        at most `start`, and those before `late` at least `stop`. What lies between is made and sorted.
        """
        num_sources = len(self.counts_S)
        early = max(0, start - num_sources - 1) / len(self)
        late = (stop + num_sources + 1) / len(self)
        first_S, last_S = self.turns_before(early), self.turns_before(late)
        sizes_S = last_S - first_S
        source = np.repeat(np.arange(num_sources), sizes_S)
        before = np.cumsum(sizes_S) - sizes_S
        index = np.arange(len(source)) + np.repeat(first_S - before, sizes_S)
        order = np.argsort(self.times(source, index), kind="stable")
        order = order[start - int(first_S.sum()) :][: stop - start]
        return source[order], index[order]

    def turns_before(self, time: float) -> np.ndarray:
        """For each source, how many of its turns lie before `time`: by comparing the times as they are."""
        sources = np.arange(len(self.counts_S))
        turns = np.ceil(time * self.counts_S - self.phases_S).astype(np.int64).clip(0, self.counts_S)
        while (late := (turns > 0) & (self.times(sources, turns - 1) >= time)).any():
            turns -= late
        while (early := (turns < self.counts_S) & (self.times(sources, turns) < time)).any():
            turns += early
        return turns

    def times(self, source: np.ndarray, index: np.ndarray) -> np.ndarray:
        """When turns stand."""
        return (index + self.phases_S[source]) / np.maximum(self.counts_S, 1)[source]


def make_schedule(counts: Mapping[str, int], seed: int) -> Schedule:
    """The schedule of so many turns of each source; where a source begins depends on seed and name."""
    phases = [np.random.default_rng([seed, text_key(name) % 2**64, 0, PHASE]).random() for name in counts]
    return Schedule(np.array([*counts.values()], dtype=np.int64), np.array(phases))
