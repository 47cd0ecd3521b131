"""The plan: exact shares, no text twice in a batch, every pass a new order, as a slow twin."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, text_key
from embedtrain.mixture import RowKeys, plan_batches, row_keys, share, split_steps

Groups = list[list[int]]
groups = st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=3), min_size=1, max_size=40)


def as_keys(texts: Groups) -> RowKeys:
    starts = np.cumsum([0] + [len(group) for group in texts])
    return RowKeys(np.array([key for group in texts for key in group], dtype=np.int64), starts)


def distinct(count: int, first: int = 0) -> RowKeys:
    return as_keys([[first + 2 * n, first + 2 * n + 1] for n in range(count)])


def slow_batches(name: str, texts: Groups, batch_size: int, seed: int) -> Iterator[list[int]]:
    """One row at a time: the oldest waiting row first, a row that clashes waits for the next batch."""
    number = 0
    while True:
        generator = np.random.default_rng([seed, text_key(name) % 2**64, number])
        waiting, yielded = generator.permutation(len(texts)).tolist(), False
        while True:
            batch: list[int] = []
            seen: set[int] = set()
            for row in waiting:
                if len(batch) < batch_size and seen.isdisjoint(texts[row]):
                    batch.append(row)
                    seen.update(texts[row])
            if len(batch) < batch_size:
                break
            waiting = [row for row in waiting if row not in batch]
            yielded = True
            yield batch
        if not yielded:
            raise UserError("too few")
        number += 1


@settings(max_examples=150, deadline=None)
@given(groups, st.integers(1, 12), st.integers(0, 2**40), st.integers(1, 12))
def test_batches_equal_the_slow_twin(texts: Groups, batch_size: int, seed: int, steps: int) -> None:
    slow = slow_batches("s", texts, batch_size, seed)
    try:
        expected = [next(slow) for _ in range(steps)]
    except UserError:
        with pytest.raises(UserError, match="batch_size is"):
            plan_batches({"s": as_keys(texts)}, {"s": 1.0}, batch_size, steps, seed)
        return
    plan = plan_batches({"s": as_keys(texts)}, {"s": 1.0}, batch_size, steps, seed)
    assert [sorted(batch.rows.tolist()) for batch in plan] == [sorted(rows) for rows in expected]
    for batch in plan:
        keys = [key for row in batch.rows for key in set(texts[row])]
        assert len(batch) == batch_size
        assert len(keys) == len(set(keys))
        assert batch.rows.dtype == np.int64


def test_the_twin_test_meets_clashes_and_several_passes() -> None:
    texts = [[n // 2, 100 + n] for n in range(20)]
    plan = plan_batches({"s": as_keys(texts)}, {"s": 1.0}, 5, 40, 3)
    order = np.random.default_rng([3, text_key("s") % 2**64, 0]).permutation(20)
    assert any(len({row // 2 for row in order[i : i + 5]}) < 5 for i in range(0, 20, 5))
    assert all(len({row // 2 for row in batch.rows}) == 5 for batch in plan)
    assert Counter(row for batch in plan for row in batch.rows).keys() == set(range(20))


def test_every_pass_holds_each_row_once_in_a_new_order() -> None:
    plan = plan_batches({"s": distinct(24)}, {"s": 1.0}, 6, 12, 0)
    passes = [np.concatenate([b.rows for b in plan[start : start + 4]]) for start in (0, 4, 8)]
    assert all(sorted(rows.tolist()) == list(range(24)) for rows in passes)
    assert len({tuple(rows.tolist()) for rows in passes}) == 3


def test_plan_depends_on_its_arguments_alone() -> None:
    sources = {"a": distinct(40), "b": distinct(30, 1000)}
    weights = {"a": 0.7, "b": 0.3}

    def flat(seed: int, steps: int = 20) -> list[tuple[str, list[int]]]:
        return [(b.source, b.rows.tolist()) for b in plan_batches(sources, weights, 8, steps, seed)]

    np.random.seed(1)
    first = flat(5)
    np.random.seed(2)
    assert flat(5) == first
    assert flat(6) != first
    alone = plan_batches({"b": sources["b"]}, {"b": 2.0}, 8, 6, 5)
    assert [b.rows.tolist() for b in alone] == [rows for source, rows in first if source == "b"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=6), st.integers(0, 500))
def test_shares_of_steps_are_exact(values: list[float], steps: int) -> None:
    weights = {str(n): value for n, value in enumerate(values)}
    if not any(values):
        with pytest.raises(UserError, match="every source has weight 0"):
            split_steps(weights, steps)
        return
    counts = split_steps(weights, steps)
    assert sum(counts.values()) == steps
    assert set(counts) == {name for name, value in weights.items() if value > 0}
    for name, count in counts.items():
        assert abs(count - steps * weights[name] / sum(values)) < 1 + 1e-9


def test_shares_by_hand_and_their_shuffle() -> None:
    weights = {"debian": 0.4, "wikipedia": 0.25, "wordnet": 0.2, "bible": 0.1, "pydoc": 0.05}
    expected = {"debian": 26, "wikipedia": 16, "wordnet": 13, "bible": 6, "pydoc": 3}
    assert split_steps(weights, 64) == expected
    assert split_steps({"a": 1.0, "b": 1.0, "off": 0.0}, 3) == {"a": 2, "b": 1}
    sources = {name: distinct(8, 100 * n) for n, name in enumerate(weights)}
    names = [batch.source for batch in plan_batches(sources, weights, 4, 64, 7)]
    assert Counter(names) == expected
    assert names != sorted(names, key=list(weights).index)


def test_a_source_that_cannot_fill_a_batch_is_named() -> None:
    with pytest.raises(UserError) as error:
        plan_batches({"bible": as_keys([[1, 2], [2, 3], [4, 5]])}, {"bible": 1.0}, 3, 1, 0)
    assert str(error.value) == (
        "source 'bible': batch_size is 3, but of its 3 rows only 2 go into one batch without a text twice"
    )
    with pytest.raises(UserError, match="of its 0 rows only 0 go"):
        plan_batches({"none": row_keys([])}, {"none": 1.0}, 1, 1, 0)


def test_keys_are_those_of_query_and_positives() -> None:
    rows = [Row("q", ("a", "b"), negatives=("n",)), Row(" b ", ("q",)), Row("x", ("y", "y"))]
    keys = row_keys(rows)
    assert keys.starts.tolist() == [0, 3, 5, 8]
    assert keys.keys.tolist() == [text_key(text) for text in ("q", "a", "b", "b", "q", "x", "y", "y")]
    both = frozenset([text_key("q"), text_key("b")])
    assert keys.shared() == {0: both, 1: both}


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_of_a_batch_cover_it_evenly(size: int, world: int) -> None:
    rows = np.arange(size)
    parts = [rows[share(rows, rank, world)] for rank in range(world)]
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
