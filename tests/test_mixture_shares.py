"""Shares of sources, and the schedule of their turns."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_mixture import (
    KINDS,
    distinct,
    mixture,
    slow_turns,
)

from embedtrain.config.errors import UserError
from embedtrain.config.sources import Source
from embedtrain.config.stages import Train
from embedtrain.mixture import (
    Plan,
    batch_sizes,
    num_steps,
    plan_shares,
)
from embedtrain.mixture.schedule import make_schedule, source_shares, split_units


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


def test_sources_have_batch_sizes_of_their_own() -> None:
    keys = {"a": distinct(40), "b": distinct(30, 1000)}
    plan = Plan(keys, {"a": 1.0, "b": 3.0}, mixture(KINDS[0]), {"a": 4, "b": 10}, 20, 0)
    assert Counter((batch.source, len(batch)) for batch in plan) == {("a", 4): 5, ("b", 10): 15}
    shares = plan.shares()
    assert (shares["a"].drawn, shares["b"].drawn) == (20, 150)
    assert shares["b"].fraction == 150 / 170
    assert shares["b"].passes == 5


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
