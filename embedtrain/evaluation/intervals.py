"""Bootstrap 95 % intervals: how far a figure would move on another draw of the same size.

A resample is a row of weights: how often each query, pair or test example was drawn. Statistics take the
weights of many resamples at once.
Dimensions: R resamples, N things drawn, E experiments, G groups of equal values, L labels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

NUM_RESAMPLES = 1000
CHUNK = 50
SEED = 0

Statistic = Callable[[np.ndarray], np.ndarray]


def draw_weights(num: int, seed: int = SEED) -> Iterator[np.ndarray]:
    """The weights of all resamples of `num` things, in chunks."""
    generator = np.random.default_rng((seed, num))
    offsets_R1 = num * np.arange(CHUNK)[:, None]
    for _ in range(NUM_RESAMPLES // CHUNK):
        drawn_RN = generator.integers(num, size=(CHUNK, num)) + offsets_R1
        yield np.bincount(drawn_RN.ravel(), minlength=CHUNK * num).reshape(CHUNK, num).astype(float)


def bootstrap(statistic: Statistic, num: int, seed: int = SEED) -> np.ndarray:
    """A statistic of `num` things in every resample; resamples are the same for whatever has so many."""
    return np.concatenate([statistic(weights_RN) for weights_RN in draw_weights(num, seed)])


def bootstrap_experiments(statistics: Sequence[Statistic], num: int, seed: int = SEED) -> np.ndarray:
    """The mean over experiments in every resample, drawing both the `num` examples and the experiments."""
    draws = zip(draw_weights(num, seed), draw_weights(len(statistics), seed + 1), strict=True)
    values = []
    for weights_RN, experiments_RE in draws:
        values_RE = np.stack([statistic(weights_RN) for statistic in statistics], axis=1)
        values.append((values_RE * experiments_RE).sum(axis=1) / len(statistics))
    return np.concatenate(values)


def bounds(values_R: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the values."""
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)


def mean_of(values_N: np.ndarray) -> Statistic:
    """The mean of resampled values."""
    return lambda weights_RN: weights_RN @ values_N / len(values_N)


def spearman_of(first_N: np.ndarray, second_N: np.ndarray) -> Statistic:
    """The rank correlation of resampled pairs, equal values sharing their mean rank."""
    groups = [group_equal(values) for values in (first_N, second_N)]

    def statistic(weights_RN: np.ndarray) -> np.ndarray:
        x_RN, y_RN = (center(weights_RN, mean_ranks(weights_RN, *group)) for group in groups)
        covariance = (weights_RN * x_RN * y_RN).sum(axis=1)
        spread = (weights_RN * x_RN**2).sum(axis=1) * (weights_RN * y_RN**2).sum(axis=1)
        return divide(covariance, np.sqrt(spread))

    return statistic


def average_precision_of(labels_N: np.ndarray, scores_N: np.ndarray) -> Statistic:
    """The average precision of resampled pairs; a threshold never parts equal scores."""
    _, members_NG = group_equal(-np.asarray(scores_N))
    labels_N = np.asarray(labels_N, dtype=float)

    def statistic(weights_RN: np.ndarray) -> np.ndarray:
        hits_RG = (weights_RN * labels_N) @ members_NG
        precision_RG = divide(hits_RG.cumsum(axis=1), (weights_RN @ members_NG).cumsum(axis=1))
        return divide((hits_RG * precision_RG).sum(axis=1), hits_RG.sum(axis=1))

    return statistic


def f1_of(gold: np.ndarray, predicted: np.ndarray, *, weighted: bool) -> Statistic:
    """The F1 of resampled examples: a mean over labels, plain (macro) or weighted by their frequency."""
    names, index = np.unique(np.concatenate([gold, predicted]), return_inverse=True)
    gold_NL = one_hot(index[: len(gold)], len(names))
    predicted_NL = one_hot(index[len(gold) :], len(names))
    both_NL = gold_NL * predicted_NL

    def statistic(weights_RN: np.ndarray) -> np.ndarray:
        gold_RL = weights_RN @ gold_NL
        total_RL = gold_RL + weights_RN @ predicted_NL
        f1_RL = divide(2 * (weights_RN @ both_NL), total_RL)
        share_RL = gold_RL if weighted else (total_RL > 0).astype(float)
        return (f1_RL * share_RL).sum(axis=1) / share_RL.sum(axis=1)

    return statistic


def largest_of(statistics: Iterable[Statistic]) -> Statistic:
    """The largest of several statistics in each resample."""
    several = list(statistics)
    return lambda weights_RN: np.max([statistic(weights_RN) for statistic in several], axis=0)


def group_equal(values_N: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """The group of each value, groups in rising order, and the same as a matrix of members."""
    names, index_N = np.unique(values_N, return_inverse=True)
    return index_N, one_hot(index_N, len(names))


def one_hot(index_N: np.ndarray, num: int) -> csr_array:
    """A row for each value with a single 1 in its column."""
    rows = np.arange(len(index_N))
    return csr_array((np.ones(len(index_N)), (rows, index_N)), shape=(len(index_N), num))


def mean_ranks(weights_RN: np.ndarray, index_N: np.ndarray, members_NG: csr_array) -> np.ndarray:
    """Rank of each value among the drawn ones, but for a constant."""
    size_RG = weights_RN @ members_NG
    return (size_RG.cumsum(axis=1) - size_RG / 2)[:, index_N]


def center(weights_RN: np.ndarray, values_RN: np.ndarray) -> np.ndarray:
    """Values less their weighted mean."""
    return values_RN - (weights_RN * values_RN).sum(axis=1, keepdims=True) / weights_RN.shape[1]


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, 0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below != 0)
