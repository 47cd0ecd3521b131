"""The metrics against plain loops and trec_eval; the intervals against the metrics on resampled data."""

import math
import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score

from embedtrain.evaluation import intervals, metrics

pytrec_eval = pytest.importorskip("pytrec_eval")


def random_run(seed: int, num_documents: int = 150) -> tuple[dict[str, float], dict[str, int]]:
    """Scores of documents, many equal, and grades of some; one graded document is not in the run."""
    generator = random.Random(seed)
    names = [f"d{number}" for number in range(num_documents)]
    run = {name: generator.choice([0.1, 0.2, 0.3, 1 / 3, 0.3 + 1e-12]) for name in names}
    judged = {name: generator.choice([-1, 0, 0, 1, 2, 3]) for name in generator.sample(names, 30)}
    return run, judged | {"absent": 2}


@pytest.mark.parametrize("seed", range(20))
def test_retrieval_equals_trec_eval(seed: int) -> None:
    run, judged = random_run(seed)
    evaluator = pytrec_eval.RelevanceEvaluator({"q": judged}, {"ndcg_cut.10", "recall.100"})
    theirs = evaluator.evaluate({"q": run})["q"]
    ranked = metrics.rank_documents(list(run), np.array(list(run.values())), 100)
    ours = metrics.retrieval_values([ranked], [judged])
    assert ours["ndcg@10"][0] == pytest.approx(theirs["ndcg_cut_10"], rel=1e-14)
    assert ours["recall@100"][0] == theirs["recall_100"]


def test_ties_decide_something() -> None:
    """The premise of the test above: ranked by falling score only, the figures would differ."""
    differ = 0
    for seed in range(20):
        run, judged = random_run(seed)
        by_id = metrics.rank_documents(list(run), np.array(list(run.values())), 100)
        by_place = sorted(run, key=run.__getitem__, reverse=True)[:100]
        differ += metrics.ndcg(by_id, judged, 10) != metrics.ndcg(by_place, judged, 10)
    assert differ > 10


def test_scores_closer_than_four_bytes_are_ties() -> None:
    assert metrics.rank_documents(["a", "b", "c"], np.array([0.5 + 1e-10, 0.5, 0.6]), 3) == ["c", "b", "a"]


def test_mrr_equals_mteb() -> None:
    retrieval_metrics = pytest.importorskip("mteb._evaluators.retrieval_metrics")
    for seed in range(20):
        run, judged = random_run(seed)
        run = {name: float(np.float32(score)) for name, score in run.items()}
        theirs = retrieval_metrics.mrr({"q": judged}, {"q": run}, [10])["MRR@10"]
        ranked = metrics.rank_documents(list(run), np.array(list(run.values())), 100)
        assert metrics.retrieval_values([ranked], [judged])["mrr@10"].tolist() == theirs


def test_retrieval_by_hand() -> None:
    judged = {"a": 2, "b": 1, "c": 0}
    values = metrics.retrieval_values([["c", "b", "x", "a"], ["x"], []], [judged, judged, {"a": 0}])
    dcg, best = 1 / math.log2(3) + 2 / math.log2(5), 2 / math.log2(2) + 1 / math.log2(3)
    assert values["ndcg@10"].tolist() == pytest.approx([dcg / best, 0, 0], rel=1e-15)
    assert values["recall@100"].tolist() == [1, 0, 0]
    assert values["mrr@10"].tolist() == [0.5, 0, 0]


def test_only_the_first_ten_count() -> None:
    ranked = [f"x{number}" for number in range(10)] + ["a"]
    values = metrics.retrieval_values([ranked], [{"a": 1}])
    assert (values["ndcg@10"][0], values["recall@100"][0], values["mrr@10"][0]) == (0, 1, 0)


def test_spearman_by_hand() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 40, 8)).astype(np.float32)
    scores = generator.integers(0, 5, size=40).astype(float)
    cosines = metrics.paired_cosines(first, second)
    slow = [
        float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in zip(first, second, strict=True)
    ]
    assert cosines == pytest.approx(slow, abs=1e-6)
    x, y = slow_ranks(scores), slow_ranks(cosines)
    assert metrics.spearman(scores, cosines) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)


def slow_ranks(values: np.ndarray) -> list[float]:
    """Mean rank among equals, one value at a time."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def test_average_precision_by_hand() -> None:
    scores, labels = np.array([0.9, 0.8, 0.8, 0.1]), [0, 1, 0, 1]
    # thresholds 0.9: none; 0.8 (two at once): 1 of 3 right, half found; 0.1: 2 of 4, all found
    assert metrics.average_precision(labels, scores) == pytest.approx(0.5 * (1 / 3) + 0.5 * (2 / 4))


def test_samples_of_classification() -> None:
    labels = [f"label{number % 5}" for number in range(200)]
    experiments = metrics.draw_samples(labels)
    assert len(experiments) == 10
    for rows in experiments:
        assert len(set(rows)) == len(rows) == 40
        assert all([labels[row] for row in rows].count(label) == 8 for label in set(labels))
    assert len({tuple(sorted(rows)) for rows in experiments}) == 10, "every experiment draws others"
    assert experiments == metrics.draw_samples(labels)


def test_rare_label_gives_all_it_has() -> None:
    assert all(rows.count(50) == 1 for rows in metrics.draw_samples(["a"] * 50 + ["b"]))


def test_bitext_by_hand() -> None:
    values = metrics.bitext_values([0, 0, 2, 2])
    assert values["accuracy"] == 0.5
    assert values["f1"] == pytest.approx((2 / 3 + 0 + 2 / 3 + 0) / 4)


def test_v_measures_of_clear_and_of_random_groups() -> None:
    generator = np.random.default_rng(0)
    labels = [f"g{number % 4}" for number in range(80)]
    centers = np.eye(4, 8)[[number % 4 for number in range(80)]]
    clear = metrics.v_measures(centers + 0.01 * generator.normal(size=(80, 8)), labels, sample_size=500)
    noise = metrics.v_measures(generator.normal(size=(80, 8)), labels, sample_size=500)
    assert len(clear) == 10
    assert clear.mean() > 0.9
    assert noise.mean() < 0.3


# intervals


def draws(num: int) -> np.ndarray:
    """A few of the resamples that the intervals use, as weights."""
    return next(intervals.draw_weights(num))[:8]


def repeated(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The values, each as often as it was drawn."""
    return np.repeat(values, weights.astype(int))


def check_statistic(
    statistic: intervals.Statistic, slow: Callable[..., float], columns: list[np.ndarray]
) -> None:
    """The statistic of many resamples equals the metric on each resampled set."""
    weights_RN = draws(len(columns[0]))
    assert (weights_RN.sum(axis=1) == len(columns[0])).all()
    assert (weights_RN == 0).any()
    expected = [slow(*(repeated(column, weights) for column in columns)) for weights in weights_RN]
    assert statistic(weights_RN) == pytest.approx(expected, rel=1e-9)
    assert len(set(expected)) > 4


def test_statistics_equal_the_metrics_on_resampled_data() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 6, size=60).astype(float)
    cosines = np.round(generator.normal(size=60) + scores / 3, 1)
    labels = generator.integers(0, 2, size=60)
    check_statistic(intervals.mean_of(cosines), np.mean, [cosines])
    check_statistic(
        intervals.spearman_of(scores, cosines), lambda *pair: spearmanr(*pair)[0], [scores, cosines]
    )
    check_statistic(
        intervals.average_precision_of(labels, cosines), average_precision_score, [labels, cosines]
    )


@pytest.mark.parametrize(("weighted", "average"), [(True, "weighted"), (False, "macro")])
def test_f1_equals_the_metric_on_resampled_data(weighted: bool, average: str) -> None:
    generator = np.random.default_rng(1)
    gold = generator.integers(0, 9, size=40)
    predicted = np.where(generator.random(40) < 0.5, gold, generator.integers(0, 12, size=40))
    statistic = intervals.f1_of(gold, predicted, weighted=weighted)
    slow = lambda *pair: f1_score(*pair, average=average, zero_division=0)  # noqa: E731
    check_statistic(statistic, slow, [gold, predicted])


def test_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(2).normal(size=400)
    low, high = intervals.bounds(intervals.bootstrap(intervals.mean_of(values), 400))
    half = 1.96 * values.std() / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.2 * half)


def test_interval_covers_the_truth_19_times_in_20() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        values = generator.normal(size=50)
        low, high = intervals.bounds(intervals.bootstrap(intervals.mean_of(values), 50))
        covered += low <= 0 <= high
    assert 0.90 <= covered / 200 <= 0.98


def test_interval_over_experiments_is_wider_than_over_examples() -> None:
    generator = np.random.default_rng(4)
    statistics = [
        intervals.mean_of((generator.random(300) < share).astype(float))
        for share in np.linspace(0.3, 0.7, 10)
    ]
    both = intervals.bounds(intervals.bootstrap_experiments(statistics, 300))
    mean = intervals.bootstrap(lambda w: np.mean([s(w) for s in statistics], axis=0), 300)
    examples = intervals.bounds(mean)
    assert both[1] - both[0] > 2 * (examples[1] - examples[0])


def test_intervals_repeat_and_follow_the_seed() -> None:
    statistic = intervals.mean_of(np.arange(30.0))
    drawn = intervals.bootstrap(statistic, 30)
    assert len(drawn) == intervals.NUM_RESAMPLES
    assert drawn.tolist() == intervals.bootstrap(statistic, 30).tolist()
    assert drawn.tolist() != intervals.bootstrap(statistic, 30, seed=1).tolist()


def test_resamples_without_a_positive_do_not_divide_by_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistic = intervals.average_precision_of(np.array([1, 0, 0]), np.array([0.3, 0.2, 0.1]))
        low, high = intervals.bounds(intervals.bootstrap(statistic, 3))
    assert (low, high) == (0.0, 1.0)
