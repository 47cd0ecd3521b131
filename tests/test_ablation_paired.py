"""Differences over seeds and test items: against plain loops, and what each verdict needs."""

from collections.abc import Mapping
from statistics import mean, pstdev

import numpy as np
import pytest
from scipy import stats

from embedtrain.ablation.paired import Difference, Seen, compare, draw_seeds, mean_of, paired_t
from embedtrain.evaluation.intervals import bootstrap, draw_weights
from embedtrain.evaluation.intervals import mean_of as item_mean

Items = Mapping[str, np.ndarray]
"""By task, the value of each seed and test item, in points: (S, N)."""


def items(seed: int, shift: float = 0.0, num_seeds: int = 4) -> dict[str, np.ndarray]:
    """Values of a model on two tasks of unlike size."""
    generator = np.random.default_rng(seed)
    return {task: generator.normal(50 + shift, 20, (num_seeds, num)) for task, num in (("x", 30), ("y", 12))}


def seen(of_tasks: Items) -> dict[str, Seen]:
    """What an evaluation keeps of them: the mean, and the mean in each resample."""
    draws = {
        task: [bootstrap(item_mean(row), len(row)) for row in values] for task, values in of_tasks.items()
    }
    return {task: Seen(of_tasks[task].mean(axis=1), np.array(draws[task])) for task in of_tasks}


def slow_interval(variant: Items, full: Items) -> tuple[list[float], float, float]:
    """The mean difference in every resample of seeds and items, one number at a time, and its middle 95 %."""
    num_seeds = len(next(iter(full.values())))
    times = {task: np.concatenate(list(draw_weights(values.shape[1]))) for task, values in full.items()}
    generator = np.random.default_rng(0)
    drawn = generator.integers(num_seeds, size=(1000, num_seeds)).tolist()
    found = []
    for resample in range(1000):
        of_seeds = []
        for seed in drawn[resample]:
            of_tasks = []
            for task, values in full.items():
                total = 0.0
                for item, often in enumerate(times[task][resample]):
                    total += often * (variant[task][seed][item] - values[seed][item])
                of_tasks.append(total / values.shape[1])
            of_seeds.append(mean(of_tasks))
        found.append(mean(of_seeds))
    low, high = np.percentile(found, [2.5, 97.5])
    return found, float(low), float(high)


def test_compare_is_the_slow_bootstrap_over_seeds_and_items() -> None:
    variant, full = items(1, shift=3), items(2)
    fast = compare(seen(variant), seen(full))
    found, low, high = slow_interval(variant, full)
    assert fast.over_both == pytest.approx((low, high))
    by_seed = [
        mean([mean(variant[task][seed]) - mean(full[task][seed]) for task in full]) for seed in range(4)
    ]
    assert fast.by_seed == pytest.approx(tuple(by_seed))
    factor = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    of_seeds = (stats.t.ppf(0.975, 3) + stats.t.ppf(0.8, 3)) * np.std(by_seed, ddof=1) / 2
    assert fast.detectable == pytest.approx(max(of_seeds, factor * pstdev(found)))
    truth = stats.ttest_rel(by_seed, np.zeros(4))
    assert fast.p == pytest.approx(truth.pvalue)
    assert fast.over_seeds == pytest.approx(tuple(truth.confidence_interval(0.95)))


def test_seeds_are_drawn_with_replacement() -> None:
    values = draw_seeds(np.repeat([[0.0], [2.0]], 1000, axis=1))
    shares = {value: float(np.mean(values == value)) for value in (0.0, 1.0, 2.0)}
    assert shares == pytest.approx({0.0: 0.25, 1.0: 0.5, 2.0: 0.25}, abs=0.05)


def test_test_items_widen_the_interval_that_seeds_alone_give() -> None:
    full = items(3)
    alike = {task: values + 1.0 for task, values in full.items()}  # every item one point better
    assert compare(seen(alike), seen(full)).over_both == pytest.approx((1.0, 1.0))
    noisy = {
        task: values + np.where(np.arange(values.shape[1]) % 2, 9.0, -7.0) for task, values in full.items()
    }
    low, high = compare(seen(noisy), seen(full)).over_both
    assert low < 0 < high
    assert compare(seen(noisy), seen(full)).verdict == "within noise"
    assert compare(seen(alike), seen(full)).verdict == "better"


def test_a_verdict_needs_both_intervals() -> None:
    def told(seeds: tuple[float, float] | None, both: tuple[float, float]) -> str:
        return Difference((1.0, 2.0), seeds, both, 0.01, 1.0).verdict

    assert told((0.1, 2), (0.2, 3)) == "better"
    assert told((-2, -0.1), (-3, -0.2)) == "worse"
    assert told((-0.1, 2), (0.2, 3)) == "within noise"
    assert told((0.1, 2), (-0.2, 3)) == "within noise"
    assert told(None, (0.2, 3)) == "one seed"


def test_one_seed_has_the_items_interval_alone() -> None:
    one = compare(seen(items(1, num_seeds=1)), seen(items(2, num_seeds=1)))
    assert one.over_seeds is one.p is one.detectable is None
    assert one.over_both[0] < one.over_both[1]
    assert one.verdict == "one seed"


def test_a_true_difference_of_the_detectable_size_is_found_four_times_out_of_five() -> None:
    generator, found = np.random.default_rng(1), 0
    true = (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)) * 2.0 / np.sqrt(5)
    for _ in range(1500):
        p = paired_t(generator.normal(true, 2.0, 5))[2]
        found += p is not None and p < 0.05
    assert found / 1500 == pytest.approx(0.8, abs=0.04)


def test_no_effect_is_rarely_called_one() -> None:
    """Seeds and items both vary; no true difference: at most about one verdict in twenty."""
    generator, called = np.random.default_rng(2), 0
    for _ in range(60):
        seeds_S1 = generator.normal(0, 1, (5, 1))
        items_1N = generator.normal(0, 4, (1, 40))
        difference = {"x": seeds_S1 + items_1N + generator.normal(0, 4, (5, 40))}
        called += compare(seen(difference), seen({"x": np.zeros((5, 40))})).verdict != "within noise"
    assert called <= 7


def test_the_mean_counts_tasks_alike() -> None:
    tasks = [Seen(np.array([1.0, 3.0]), np.zeros((2, 1))), Seen(np.array([10.0, 20.0]), np.zeros((2, 1)))]
    assert mean_of(tasks) == pytest.approx(8.5)
