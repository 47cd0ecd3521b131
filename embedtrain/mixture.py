"""Which rows of which source form each global batch: a pure function of keys, weights, sizes and a seed."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, text_key

Rows = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PlannedBatch:
    """One global batch: row numbers (int64) of one source."""

    source: str
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class RowKeys:
    """Keys of the texts of N rows, end to end in `keys`; row i's are `keys[starts[i]:starts[i + 1]]`."""

    keys: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def shared(self) -> dict[int, frozenset[int]]:
        """Row → its keys that some other row has too; only rows with such keys. All others never conflict."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.starts))
        pairs = np.unique(np.stack([self.keys, owners], axis=1), axis=0)
        _, first, counts = np.unique(pairs[:, 0], return_index=True, return_counts=True)
        rows: dict[int, set[int]] = {}
        for start, count in zip(first[counts > 1], counts[counts > 1], strict=True):
            for key, row in pairs[start : start + count].tolist():
                rows.setdefault(row, set()).add(key)
        return {row: frozenset(keys) for row, keys in rows.items()}


def row_keys(rows: Sequence[Row]) -> RowKeys:
    """Keys of each row's query and positives."""
    texts = [(row.query, *row.positives) for row in rows]
    starts = np.concatenate([[0], np.cumsum([len(t) for t in texts], dtype=np.int64)])
    keys = np.array([text_key(text) for group in texts for text in group], dtype=np.int64)
    return RowKeys(keys, starts.astype(np.int64))


def plan_batches(
    sources: Mapping[str, RowKeys], weights: Mapping[str, float], batch_size: int, steps: int, seed: int
) -> list[PlannedBatch]:
    """The global batches of `steps` steps.

    Every batch holds rows of one source. Sources get their exact share of the steps (largest remainder), in
    a shuffled order. A source is reshuffled for every pass over it. No two rows of a batch share a text: one
    that would do so moves to a later batch of the same pass. Rows that fill no batch at the end of a pass are
    left out of it. Raises UserError where a source cannot fill one batch.
    """
    counts = split_steps({name: weights[name] for name in sources}, steps)
    order = [name for name, count in counts.items() for _ in range(count)]
    np.random.default_rng([seed, steps]).shuffle(order)
    streams = {name: stream_batches(name, sources[name], batch_size, seed) for name in counts}
    return [PlannedBatch(name, next(streams[name])) for name in order]


def split_steps(weights: Mapping[str, float], steps: int) -> dict[str, int]:
    """Steps of each source in proportion to its weight, summing to `steps`; the earlier source wins a tie."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items() if weight > 0}
    if not exact:
        raise UserError("every source has weight 0; expected at least one above 0")
    quotas = {name: weight * steps / sum(exact.values()) for name, weight in exact.items()}
    counts = {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: counts[name] - quotas[name])
    for name in by_remainder[: steps - sum(counts.values())]:
        counts[name] += 1
    return counts


def stream_batches(name: str, keys: RowKeys, batch_size: int, seed: int) -> Iterator[Rows]:
    """Batches of one source without end, pass after pass."""
    shared, number = keys.shared(), 0
    while True:
        generator = np.random.default_rng([seed, text_key(name) % 2**64, number])
        order, full = generator.permutation(len(keys)), 0
        for batch in fill_batches(order, shared, batch_size):
            if len(batch) < batch_size:
                break
            full += 1
            yield batch
        if full == 0:
            raise UserError(
                f"source '{name}': batch_size is {batch_size}, but of its {len(keys)} rows only "
                f"{len(batch) if len(order) else 0} go into one batch without a text twice"
            )
        number += 1


def fill_batches(order: Rows, shared: Mapping[int, frozenset[int]], batch_size: int) -> Iterator[Rows]:
    """One pass: full batches in order, then what is left, batch by batch.

    Rows put off come first in the next batch, oldest first; only rows with shared keys can be put off.
    """
    risky = np.isin(order, np.fromiter(shared, np.int64, len(shared)))
    put_off: list[int] = []
    position = 0
    while position < len(order) or put_off:
        taken: set[int] = set()
        early, put_off = take_free(put_off, shared, taken, batch_size)
        parts = [np.array(early, dtype=np.int64)]
        missing = batch_size - len(early)
        while missing and position < len(order):
            stop = position + missing
            rows, checked = order[position:stop], risky[position:stop]
            if checked.any():
                _, late = take_free(rows[checked].tolist(), shared, taken, batch_size)
                rows = rows[~np.isin(rows, late)] if late else rows
                put_off += late
            parts.append(rows)
            missing -= len(rows)
            position = stop
        yield np.concatenate(parts)


def take_free(
    rows: Sequence[int], shared: Mapping[int, frozenset[int]], taken: set[int], most: int
) -> tuple[list[int], list[int]]:
    """(rows that share no key with `taken` or each other, at most `most`; the others). Adds to `taken`."""
    free: list[int] = []
    others: list[int] = []
    for row in rows:
        if len(free) < most and taken.isdisjoint(shared[row]):
            free.append(row)
            taken |= shared[row]
        else:
            others.append(row)
    return free, others


def share(rows: Sized, rank: int, world: int) -> slice:
    """The contiguous part of a batch's rows that process `rank` of `world` holds, even to one row."""
    return slice(len(rows) * rank // world, len(rows) * (rank + 1) // world)
