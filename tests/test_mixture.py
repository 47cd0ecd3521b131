"""The plan: any batch alone, the same for any number of processes, no text twice, as a slow twin."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_mixture import (
    KINDS,
    Groups,
    Placed,
    distinct,
    flat,
    make_plan,
    placed,
    slow_plan,
)

from embedtrain.config.errors import UserError
from embedtrain.config.sources import Mixture
from embedtrain.data.rows import Row, text_key
from embedtrain.data.store.writing import store_rows
from embedtrain.mixture import (
    Part,
    Plan,
    row_keys,
    share,
)

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
    firsts = {(batch.parts[0].source, len(batch.parts[0])) for batch in make_plan(texts, quarter, 8, 10, 0)}
    assert firsts == {("a", 2 + 3), ("b", 2)}  # pooled rows of `a` follow those of a main part of `a`
    alone = make_plan({"a": texts["a"]}, KINDS[2], 8, 4, 0)
    assert {(batch.source, len(batch.parts)) for batch in alone} == {("a", 1)}


def test_every_pass_holds_each_row_once_in_a_new_order() -> None:
    texts = {"s": [[n] for n in range(24)]}
    for batches in KINDS[:2]:
        plan = flat(make_plan(texts, batches, 6, 12, 0))
        passes = [[row for rows in plan[start : start + 4] for _, row in rows] for start in (0, 4, 8)]
        assert all(sorted(rows) == list(range(24)) for rows in passes)
        assert len({tuple(rows) for rows in passes}) == 3


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


def test_keys_are_those_of_query_and_positives(tmp_path: Path) -> None:
    rows = [Row("q", ("a", "b"), negatives=("n",)), Row(" b ", ("q",)), Row("x", ("y", "y"))]
    keys = row_keys(rows)
    assert keys.starts.tolist() == [0, 3, 5, 8]
    assert keys.keys.tolist() == [text_key(text) for text in ("q", "a", "b", "b", "q", "x", "y", "y")]
    store = store_rows(rows, tmp_path / "store")
    for stored, listed in ((store, rows), (store.take(np.array([2, 0])), [rows[2], rows[0]])):
        found, expected = row_keys(stored), row_keys(listed)
        assert found.keys.tolist() == expected.keys.tolist()
        assert found.starts.tolist() == expected.starts.tolist()


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_of_a_batch_cover_it_evenly(size: int, world: int) -> None:
    rows = np.arange(size)
    parts = [rows[share(rows, rank, world)] for rank in range(world)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
