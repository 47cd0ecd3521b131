"""Differences of paired models: what seeds and test items may explain, and what they may not.

Dimensions: S seeds, R resamples of a task's test items, the same ones for every model and seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from embedtrain.evaluation.intervals import bounds

CONFIDENCE, POWER = 0.95, 0.8
Interval = tuple[float, float]


@dataclass(frozen=True)
class Seen:
    """A model on one task, with every seed: its figure, and the figure in each resample of the items."""

    values_S: np.ndarray
    draws_SR: np.ndarray


@dataclass(frozen=True)
class Difference:
    """A variant less the full recipe, in points of 100: over the mean of some tasks.

    `over_seeds` bounds the mean over seeds (paired t), `over_both` over seeds and test items (bootstrap).
    `detectable` is the least true difference that would be told apart four times out of five. With one seed
    there is neither t interval nor p nor `detectable`.
    """

    by_seed: tuple[float, ...]
    over_seeds: Interval | None
    over_both: Interval
    p: float | None
    detectable: float | None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.by_seed))

    @property
    def verdict(self) -> str:
        """Better or worse only where neither interval holds zero."""
        if self.over_seeds is None:
            return "one seed"
        if min(self.over_seeds[0], self.over_both[0]) > 0:
            return "better"
        return "worse" if max(self.over_seeds[1], self.over_both[1]) < 0 else "within noise"


def compare(variant: Mapping[str, Seen], full: Mapping[str, Seen]) -> Difference:
    """The difference of two models on the same tasks with the same seeds; each task counts alike."""
    by_seed_S = np.mean([variant[task].values_S - full[task].values_S for task in full], axis=0)
    draws_SR = np.mean([variant[task].draws_SR - full[task].draws_SR for task in full], axis=0)
    low, high, p, detectable = paired_t(by_seed_S)
    drawn_R = draw_seeds(draws_SR)
    if detectable is not None:
        detectable = max(detectable, float(drawn_R.std() * norm.ppf([(1 + CONFIDENCE) / 2, POWER]).sum()))
    seeds = None if low is None or high is None else (low, high)
    return Difference(tuple(by_seed_S.tolist()), seeds, bounds(drawn_R), p, detectable)


def draw_seeds(draws_SR: np.ndarray, seed: int = 0) -> np.ndarray:
    """In each resample of the items, the mean over as many seeds drawn with replacement: (R,)."""
    num, resamples = draws_SR.shape
    drawn_RS = np.random.default_rng(seed).integers(num, size=(resamples, num))
    return np.take_along_axis(draws_SR.T, drawn_RS, axis=1).mean(axis=1)


def paired_t(
    by_seed_S: np.ndarray,
) -> tuple[float | None, float | None, float | None, float | None]:
    """95 % interval of the mean, two-sided p, and the difference found with a power of 80 %."""
    num = len(by_seed_S)
    if num < 2:
        return None, None, None, None
    mean, error = float(by_seed_S.mean()), float(by_seed_S.std(ddof=1)) / sqrt(num)
    far, powered = (float(student.ppf(q, num - 1)) for q in ((1 + CONFIDENCE) / 2, POWER))
    p = 2 * float(student.sf(abs(mean) / error, num - 1)) if error else float(mean == 0)
    return mean - far * error, mean + far * error, p, (far + powered) * error


def mean_of(tasks: Sequence[Seen]) -> float:
    """The mean over tasks and seeds."""
    return float(np.mean([seen.values_S.mean() for seen in tasks]))
