"""The plan: exact shares, any batch alone, the same for any number of processes, as a slow twin."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.config.sources import Mixture, Source
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row, text_key
from embedtrain.mixture import (
    Part,
    Plan,
    PlannedBatch,
    RowKeys,
    batch_sizes,
    num_steps,
    plan_shares,
    row_keys,
    share,
)
from embedtrain.mixture.schedule import make_schedule, source_shares, split_units

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


# A slow twin: one turn and one row at a time, from the beginning of the run.


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


groups = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=3), min_size=4, max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), groups, min_size=1),
    st.sampled_from(KINDS),
    st.integers(2, 6),
    st.integers(0, 2**40),
    st.integers(1, 12),
)
def test_the_plan_is_its_slow_twin(
    texts: dict[str, Groups], batches: dict[str, object], size: int, seed: int, steps: int
) -> None:
    size = min(size, *map(len, texts.values()))
    try:
        expected = slow_plan(texts, str(batches["kind"]), size, steps, seed)
    except UserError:
        with pytest.raises(UserError, match="completes a batch"):
            flat(make_plan(texts, batches, size, steps, seed))
        return
    plan = make_plan(texts, batches, size, steps, seed)
    found = list(plan)
    assert [(placed(batch), batch.swapped) for batch in found] == expected
    assert [batch.step for batch in found] == list(range(steps))
    for batch in found:
        texts_of = [key for name, row in placed(batch) for key in set(texts[name][row])]
        assert len(texts_of) == len(set(texts_of))
        assert all(part.rows.dtype == np.int64 for part in batch.parts)


def test_the_twin_test_meets_swaps_of_both_ways_and_several_passes() -> None:
    """With 64 labels for 70 rows, 32 draws often find none that fits the last places."""
    texts = {"a": [[n % 12, 100 + n] for n in range(70)], "b": [[1000 + n] for n in range(9)]}
    for batches in KINDS:
        plan = make_plan(texts, batches, 9, 40, 3)
        assert sum(batch.swapped for batch in plan) > 0
        assert [(placed(b), b.swapped) for b in plan] == slow_plan(texts, str(batches["kind"]), 9, 40, 3)
        assert plan.shares()["b"].passes > 2
    full = {"a": [[n % 64, 100 + n] for n in range(70)]}
    assert [(placed(b), b.swapped) for b in make_plan(full, KINDS[0], 64, 3, 0)] == slow_plan(
        full, "one_source", 64, 3, 0
    )


@pytest.mark.parametrize("batches", KINDS)
def test_a_step_alone_is_the_step_in_sequence(batches: dict[str, object]) -> None:
    """From any start, in any order, across blocks."""
    texts = {"a": [[n // 2, 100 + n] for n in range(50)], "b": [[500 + n] for n in range(31)]}
    plan = make_plan(texts, batches, 8, 3000, 11)
    plan.block_steps = 700
    whole = [(placed(batch), batch.swapped) for batch in plan]
    assert len(whole) == len(plan) == 3000
    again = make_plan(texts, batches, 8, 3000, 11)
    for step in (2999, 0, 1500, 699, 700, 701, *range(1000, 1040), 3):
        assert (placed(again[step]), again[step].swapped) == whole[step]
    assert placed(again[-1]) == whole[-1][0]
    assert [placed(batch) for batch in again.batches(650, 1450)] == [rows for rows, _ in whole[650:1450]]
    with pytest.raises(IndexError):
        again[3000]


@pytest.mark.parametrize("batches", KINDS)
def test_shares_over_ten_thousand_batches_are_exact(batches: dict[str, object]) -> None:
    """To within one batch of the weights, over the run and over every hundred steps of it."""
    weights = {"debian": 0.4, "wikipedia": 0.25, "wordnet": 0.2, "bible": 0.1, "pydoc": 0.05}
    keys = {name: distinct(64 + 10 * n, 10_000 * n) for n, name in enumerate(weights)}
    plan = Plan(keys, weights, mixture(batches), dict.fromkeys(keys, 16), 10_000, 5)
    windows = [Counter[str]() for _ in range(100)]
    for batch in plan:
        for part in batch.parts:
            windows[batch.step // 100][part.source] += len(part)
    total = sum(windows, Counter[str]())
    for name, weight in weights.items():
        assert abs(total[name] - weight * 160_000) <= 16
        assert plan.shares()[name].drawn == total[name]
        assert all(abs(window[name] - weight * 1600) <= 2 * 16 for window in windows)


@pytest.mark.parametrize("batches", KINDS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_hold_the_same_global_batches(batches: dict[str, object], world: int) -> None:
    texts = {"a": [[n // 2, 100 + n] for n in range(50)], "b": [[500 + n] for n in range(31)]}
    for batch in make_plan(texts, batches, 10, 60, 2):
        shares = [batch.local(rank, world) for rank in range(world)]
        rows = [(part.source, row) for parts in shares for part in parts for row in part.rows.tolist()]
        assert rows == placed(batch)
        assert max(map(size_of, shares)) - min(map(size_of, shares)) <= 1
        first = 0
        for part in (part for parts in shares for part in parts):
            assert part.first == first
            assert len(part) > 0
            first += len(part)


def size_of(parts: tuple[Part, ...]) -> int:
    return sum(map(len, parts))


def test_sources_of_a_batch() -> None:
    texts = {"a": [[n] for n in range(40)], "b": [[100 + n] for n in range(40)]}
    assert {batch.source for batch in make_plan(texts, KINDS[0], 8, 10, 0)} == {"a", "b"}
    assert all(len(batch.parts) == 1 for batch in make_plan(texts, KINDS[0], 8, 10, 0))
    for batch in make_plan(texts, KINDS[1], 8, 10, 0):
        assert batch.source == "several"
        assert [part.source for part in batch.parts] == ["a", "b"]
        assert len(batch) == 8
    mains = Counter(batch.parts[0].source for batch in make_plan(texts, KINDS[2], 8, 10, 0))
    assert mains == {"a": 5, "b": 5}
    quarter = {"kind": "semi_homogeneous", "main_fraction": 0.25}
    assert {len(batch.parts[0]) for batch in make_plan(texts, quarter, 8, 10, 0)} == {2}
    alone = make_plan({"a": texts["a"]}, KINDS[2], 8, 4, 0)
    assert {(batch.source, len(batch.parts)) for batch in alone} == {("a", 2)}


def test_every_pass_holds_each_row_once_in_a_new_order() -> None:
    texts = {"s": [[n] for n in range(24)]}
    for batches in KINDS[:2]:
        plan = flat(make_plan(texts, batches, 6, 12, 0))
        passes = [[row for rows in plan[start : start + 4] for _, row in rows] for start in (0, 4, 8)]
        assert all(sorted(rows) == list(range(24)) for rows in passes)
        assert len({tuple(rows) for rows in passes}) == 3


def test_sources_have_batch_sizes_of_their_own() -> None:
    keys = {"a": distinct(40), "b": distinct(30, 1000)}
    plan = Plan(keys, {"a": 1.0, "b": 3.0}, mixture(KINDS[0]), {"a": 4, "b": 10}, 20, 0)
    assert Counter((batch.source, len(batch)) for batch in plan) == {("a", 4): 5, ("b", 10): 15}
    shares = plan.shares()
    assert (shares["a"].drawn, shares["b"].drawn) == (20, 150)
    assert shares["b"].fraction == 150 / 170
    assert shares["b"].passes == 5


def test_a_row_never_stands_twice_in_a_batch_even_where_texts_may() -> None:
    texts = {"a": [[1] for _ in range(8)], "b": [[2] for _ in range(8)]}
    for batches in KINDS:
        plan = make_plan(texts, batches, 6, 50, 4, unique_texts=False)
        assert all(len(set(rows)) == 6 for rows in flat(plan))
    blended = make_plan(texts, KINDS[1], 6, 50, 4, unique_texts=False)
    assert sum(batch.swapped for batch in blended) > 0  # where a batch stands across the end of a pass
    assert sum(b.swapped for b in make_plan(texts, KINDS[0], 6, 50, 4, unique_texts=False)) == 0


def test_plan_depends_on_its_arguments_alone() -> None:
    sources = {"a": distinct(40), "b": distinct(30, 1000)}

    def rows(seed: int) -> list[Placed]:
        return flat(Plan(sources, {"a": 0.7, "b": 0.3}, Mixture(), {"a": 8, "b": 8}, 20, seed))

    np.random.seed(1)
    first = rows(5)
    np.random.seed(2)
    assert rows(5) == first
    assert rows(6) != first
    alone = Plan({"b": sources["b"]}, {"b": 2.0}, Mixture(), {"b": 8}, 6, 5)
    assert flat(alone) == [batch for batch in first if batch[0][0] == "b"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=6), st.integers(0, 2**40), st.data())
def test_a_window_of_the_schedule_is_cut_from_the_whole(
    values: list[int], seed: int, data: st.DataObject
) -> None:
    counts = {str(n): value for n, value in enumerate(values)}
    if not sum(values):
        return
    whole = slow_turns(counts, seed)
    schedule = make_schedule(counts, seed)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    source, index = schedule.window(start, stop)
    assert [str(s) for s in source.tolist()] == whole[start:stop]
    taken = Counter(whole[:start])
    for name, number in zip(map(str, source.tolist()), index.tolist(), strict=True):
        assert number == taken[name]
        taken[name] += 1


def test_a_far_window_of_a_long_schedule_joins_its_neighbours() -> None:
    """A billion turns, where times differ by little more than float64 tells apart."""
    counts = {"a": 10**9, "b": 3, "c": 123_456_789}
    schedule = make_schedule(counts, 1)
    at = [500_000_000, 500_000_700, 500_001_400]
    source, index = schedule.window(at[0], at[2])
    parts = [schedule.window(start, stop) for start, stop in pairwise(at)]
    assert np.array_equal(np.concatenate([part[0] for part in parts]), source)
    assert np.array_equal(np.concatenate([part[1] for part in parts]), index)
    assert np.array_equal(np.diff(index[source == 0]), np.ones((source == 0).sum() - 1))


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.integers(0, 500))
def test_shares_of_steps_are_exact(values: list[float], steps: int) -> None:
    weights = {str(n): value for n, value in enumerate(values)}
    sizes = dict.fromkeys(weights, 7)
    if not any(values):
        with pytest.raises(UserError, match="every source has weight 0"):
            source_shares(sizes, weights, 0.0)
        return
    counts = split_units(source_shares(sizes, weights, 0.0), steps)
    assert sum(counts.values()) == steps
    for name, count in counts.items():
        assert abs(count - steps * weights[name] / sum(values)) < 1 + 1e-9


def test_shares_by_hand() -> None:
    weights = {"debian": 0.4, "wikipedia": 0.25, "wordnet": 0.2, "bible": 0.1, "pydoc": 0.05}
    sizes = dict.fromkeys(weights, 10)
    expected = {"debian": 26, "wikipedia": 16, "wordnet": 13, "bible": 6, "pydoc": 3}
    assert split_units(source_shares(sizes, weights, 0.5), 64) == expected
    assert split_units({"a": Fraction(1), "b": Fraction(1), "off": Fraction(0)}, 3) == {
        "a": 2,
        "b": 1,
        "off": 0,
    }
    sizes, even = {"big": 900, "small": 100}, {"big": 1.0, "small": 1.0}
    for exponent, big in ((0.0, 60), (0.5, 90), (1.0, 108)):
        shares = plan_shares(
            sizes, even, mixture(KINDS[0], size_exponent=exponent), {"big": 2, "small": 2}, 120
        )
        assert shares["big"].drawn == 2 * big
        assert shares["big"].fraction == big / 120
        assert shares["small"].passes == 2 * (120 - big) / 100


def test_steps_are_given_or_follow_from_epochs() -> None:
    given_steps = train_stage(steps=9)
    assert num_steps(given_steps, {"a": 10**6}) == 9
    assert num_steps(train_stage(epochs=2), {"a": 30, "b": 20}) == 13  # 100 rows of 8
    assert num_steps(train_stage(epochs=0.1), {"a": 80}) == 1
    assert num_steps(train_stage(epochs=3), {"a": 8}) == 3
    sources = {"a": Source(rows="a.parquet"), "b": Source(rows="b.parquet", batch_size=5)}
    assert batch_sizes(given_steps, sources) == {"a": 8, "b": 5}
    assert batch_sizes(train_stage(steps=1, mixture={"batches": KINDS[1]}), sources) == {"a": 8, "b": 8}


def train_stage(**changes: object) -> Train:
    settings = {"kind": "train", "name": "t", "objective": {"terms": [{"kind": "infonce"}]}, "lr": 1e-3}
    return Train.model_validate(settings | {"batch_size": 8} | changes)


def test_a_source_that_cannot_fill_its_part_is_named() -> None:
    with pytest.raises(UserError) as error:
        make_plan({"bible": [[1], [2]]}, KINDS[0], 3, 1, 0)
    assert str(error.value) == "source 'bible': a batch holds 3 of its rows, and it has only 2"
    with pytest.raises(UserError) as error:
        flat(make_plan({"bible": [[1, 2], [2, 3], [4, 5]]}, KINDS[0], 3, 5, 0))
    assert str(error.value) == (
        "source 'bible', step 1: none of its 3 rows completes a batch of 3 without a text or a row twice; "
        "lower batch_size"
    )
    with pytest.raises(UserError, match="every source has weight 0"):
        Plan({"a": distinct(4)}, {"a": 0.0}, Mixture(), {"a": 2}, 1, 0)


def test_keys_are_those_of_query_and_positives() -> None:
    rows = [Row("q", ("a", "b"), negatives=("n",)), Row(" b ", ("q",)), Row("x", ("y", "y"))]
    keys = row_keys(rows)
    assert keys.starts.tolist() == [0, 3, 5, 8]
    assert keys.keys.tolist() == [text_key(text) for text in ("q", "a", "b", "b", "q", "x", "y", "y")]


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_of_a_batch_cover_it_evenly(size: int, world: int) -> None:
    rows = np.arange(size)
    parts = [rows[share(rows, rank, world)] for rank in range(world)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
