"""Differences of paired runs: what seeds and test queries may explain, and what they may not.

Dimensions: S seeds, N queries of a task, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.ablation.paired import CONFIDENCE, paired_t

Values = Mapping[str, np.ndarray]
"""By task, nDCG of each query and seed: (S, N), the same seeds and queries in every model."""
NUM_RESAMPLES = 10_000
CHUNK = 500


@dataclass(frozen=True)
class Difference:
    """One model less another, in points of 100: over the mean of the tasks.

    `low` and `high` bound the mean over seeds (paired t); `query_low` and `query_high` the mean over queries
    (bootstrap). `detectable` is the true difference that so many seeds would find four times out of five.
    With one seed there is neither t interval nor p nor `detectable`.
    """

    first: str
    second: str
    by_seed: tuple[float, ...]
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None
    query_low: float
    query_high: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.by_seed))

    @property
    def is_real(self) -> bool:
        """Whether neither the seeds' nor the queries' interval holds zero."""
        seeds = self.low is not None and self.high is not None and self.low * self.high > 0
        return seeds and self.query_low * self.query_high > 0


def compare(first: str, second: str, values: Mapping[str, Values]) -> Difference:
    """The difference of two models over the seeds that both have."""
    by_task = {task: first_SN - values[second][task] for task, first_SN in values[first].items()}
    by_seed_S = 100 * np.mean([task_SN.mean(axis=1) for task_SN in by_task.values()], axis=0)
    low, high, p, detectable = paired_t(by_seed_S)
    query_low, query_high = query_interval([100 * task_SN.mean(axis=0) for task_SN in by_task.values()])
    by_seed = tuple(by_seed_S.tolist())
    return Difference(first, second, by_seed, low, high, p, detectable, query_low, query_high)


def query_interval(tasks: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over tasks of the mean over queries, each task's queries drawn again."""
    generator, means_R = np.random.default_rng(seed), np.zeros(NUM_RESAMPLES)
    for values_N in tasks:
        for start in range(0, NUM_RESAMPLES, CHUNK):
            drawn_RN = generator.integers(len(values_N), size=(CHUNK, len(values_N)))
            means_R[start : start + CHUNK] += values_N[drawn_RN].mean(axis=1) / len(tasks)
    low, high = np.percentile(means_R, [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2])
    return float(low), float(high)
