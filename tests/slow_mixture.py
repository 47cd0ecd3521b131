"""A plan made the slow way: one turn and one row at a time, from the beginning of the run."""

from collections import Counter
from fractions import Fraction

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.config.sources import Mixture
from embedtrain.data.rows import text_key
from embedtrain.mixture import (
    Plan,
    PlannedBatch,
    RowKeys,
)
from embedtrain.mixture.schedule import split_units

Groups = list[list[int]]
KINDS: list[dict[str, object]] = [
    {"kind": "one_source"},
    {"kind": "blended"},
    {"kind": "semi_homogeneous", "main_fraction": 0.5},
]
Placed = list[tuple[str, int]]


def as_keys(texts: Groups) -> RowKeys:
    starts = np.cumsum([0] + [len(group) for group in texts])
    return RowKeys(np.array([key for group in texts for key in group], dtype=np.int64), starts)


def distinct(count: int, first: int = 0) -> RowKeys:
    return as_keys([[first + 2 * n, first + 2 * n + 1] for n in range(count)])


def mixture(batches: dict[str, object], **changes: object) -> Mixture:
    return Mixture.model_validate({"batches": batches, **changes})


def make_plan(
    texts: dict[str, Groups], batches: dict[str, object], size: int, steps: int, seed: int, **changes: object
) -> Plan:
    keys = {name: as_keys(groups) for name, groups in texts.items()}
    weights = dict.fromkeys(keys, 1.0)
    return Plan(keys, weights, mixture(batches, **changes), dict.fromkeys(keys, size), steps, seed)


def placed(batch: PlannedBatch) -> Placed:
    """(source, row) of every place of a batch, in order."""
    return [(part.source, row) for part in batch.parts for row in part.rows.tolist()]


def flat(plan: Plan) -> list[Placed]:
    return [placed(batch) for batch in plan]


def slow_turns(counts: dict[str, int], seed: int) -> list[str]:
    """The source of every turn, by time, the earlier source first."""
    turns = []
    for order, (name, count) in enumerate(counts.items()):
        phase = np.random.default_rng([seed, text_key(name) % 2**64, 0, 2]).random()
        turns += [((i + phase) / count, order, name) for i in range(count)]
    return [name for _, _, name in sorted(turns)]


def slow_rows(name: str, num_rows: int, width: int, turn: int, seed: int, stream: list[int]) -> list[int]:
    """The rows of a source's turn: whole batches of a pass, then another pass in another order."""
    number, batch = divmod(turn, num_rows // width)
    generator = np.random.default_rng([seed, text_key(name) % 2**64, number, *stream])
    return list(generator.permutation(num_rows)[batch * width : (batch + 1) * width].tolist())


def slow_stream(
    sizes: dict[str, int], width: int, turns: int, steps: int, seed: int, stream: list[int]
) -> list[Placed]:
    """For every step, the rows of its turns, by source."""
    shares = {name: Fraction(1) for name in sizes}
    names = slow_turns(split_units(shares, steps * turns), seed)
    taken = Counter[str]()
    found = []
    for step in range(steps):
        rows: Placed = []
        for name in names[step * turns : (step + 1) * turns]:
            rows += [(name, r) for r in slow_rows(name, sizes[name], width, taken[name], seed, stream)]
            taken[name] += 1
        found.append(sorted(rows, key=lambda place: [*sizes].index(place[0])))
    return found


def slow_mend(rows: Placed, texts: dict[str, Groups], step: int, seed: int) -> tuple[Placed, int]:
    """Rows that repeat a row or a text of an earlier one are drawn anew, one after another."""
    marks: set[object] = set()

    def of(place: tuple[str, int]) -> set[object]:
        return {place, *texts[place[0]][place[1]]}

    late = []
    for number, place in enumerate(rows):
        if marks & of(place):
            late.append(number)
        else:
            marks |= of(place)
    start = dict(zip(texts, np.cumsum([0, *map(len, texts.values())]).tolist(), strict=False))
    for number in late:
        name = rows[number][0]
        size = len(texts[name])
        generator = np.random.default_rng([seed, step, number, 3])
        drawn = generator.integers(start[name], start[name] + size, 32) - start[name]
        fitting = [row for row in drawn.tolist() if not marks & of((name, row))]
        if not fitting:
            free = [row for row in range(size) if not marks & of((name, row))]
            if not free:
                raise UserError("none fits")
            fitting = [int(generator.choice(free))]
        rows[number] = (name, fitting[0])
        marks |= of(rows[number])
    return rows, len(late)


def slow_plan(
    texts: dict[str, Groups], kind: str, size: int, steps: int, seed: int
) -> list[tuple[Placed, int]]:
    sizes = {name: len(groups) for name, groups in texts.items()}
    main = {"one_source": size, "blended": 0, "semi_homogeneous": min(max(1, round(size / 2)), size - 1)}[
        kind
    ]
    streams = [slow_stream(sizes, main, 1, steps, seed, [])] if main else []
    if main < size:
        streams.append(slow_stream(sizes, 1, size - main, steps, seed, [1]))
    together = [[row for rows in parts for row in rows] for parts in zip(*streams, strict=True)]
    return [slow_mend(rows, texts, step, seed) for step, rows in enumerate(together)]
