"""What each kind of task reports: mteb 2.26's definitions, in plain numpy. Values lie between 0 and 1.

scipy and scikit-learn are imported where they are used: most stages measure nothing that needs them.
Dimensions: T texts or pairs, E experiments, D dims of a vector.
"""

import math
import random
import warnings
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

SEED = 42  # mteb's
NUM_EXPERIMENTS = 10
SAMPLES_PER_LABEL = 8
CLUSTERED_SAMPLE = 16_384
UNIT_ATOL = 1e-4  # of the length of a vector that was brought to 1 in half precision or better

Labels = Sequence[Hashable] | np.ndarray


# retrieval


def rank_documents(document_ids: Sequence[str], scores: np.ndarray, num: int) -> list[str]:
    """The best `num` ids. As trec_eval: scores of 4 bytes, equal ones by id, both from the highest down."""
    pairs = zip(np.asarray(scores, dtype=np.float32).tolist(), document_ids, strict=True)
    return [name for _, name in sorted(pairs, reverse=True)[:num]]


def ndcg(ranked: Sequence[str], judged: Mapping[str, int], num: int) -> float:
    """Discounted gain of the first `num` over the best possible; a document's gain is its judged grade."""
    best = sorted((grade for grade in judged.values() if grade > 0), reverse=True)
    found = [max(judged.get(name, 0), 0) for name in ranked]
    ideal = discounted_gain(best[:num])
    return discounted_gain(found[:num]) / ideal if ideal > 0 else 0.0


def discounted_gain(grades: Sequence[int]) -> float:
    """Sum of each grade over log2(rank + 1), ranks from 1."""
    return sum(grade / (math.log(rank + 2) / math.log(2)) for rank, grade in enumerate(grades) if grade)


def recall(ranked: Sequence[str], judged: Mapping[str, int], num: int) -> float:
    """Share of the relevant documents among the first `num`."""
    relevant = {name for name, grade in judged.items() if grade > 0}
    return len(relevant.intersection(ranked[:num])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], judged: Mapping[str, int], num: int) -> float:
    """One over the rank of the first relevant document, 0 where none is among the first `num`."""
    hits = (rank for rank, name in enumerate(ranked[:num], start=1) if judged.get(name, 0) > 0)
    return 1.0 / next(hits, math.inf)


def retrieval_values(
    ranked: Sequence[Sequence[str]], judged: Sequence[Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Values of every query. `ranked` holds at least 100 document ids a query where there are as many."""
    pairs = list(zip(ranked, judged, strict=True))
    return {
        "ndcg@10": np.array([ndcg(*pair, 10) for pair in pairs]),
        "recall@100": np.array([recall(*pair, 100) for pair in pairs]),
        "mrr@10": np.array([reciprocal_rank(*pair, 10) for pair in pairs]),
    }


def mean_precision(ranked: Sequence[str], judged: Mapping[str, int], num: int) -> float:
    """The mean over relevant documents of the precision at the rank of each, 0 for one that is not ranked."""
    relevant = sum(grade > 0 for grade in judged.values())
    precisions, hits = [], 0
    for rank, name in enumerate(ranked[:num], start=1):
        if judged.get(name, 0) > 0:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / relevant if relevant else 0.0


def reranking_values(
    ranked: Sequence[Sequence[str]], judged: Sequence[Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Values of every query. `ranked` holds at least 1,000 document ids a query where there are as many."""
    pairs = list(zip(ranked, judged, strict=True))
    return {
        "map@1000": np.array([mean_precision(*pair, 1000) for pair in pairs]),
        "mrr@10": np.array([reciprocal_rank(*pair, 10) for pair in pairs]),
        "ndcg@10": np.array([ndcg(*pair, 10) for pair in pairs]),
    }


# similarity of pairs


def paired_cosines(first_TD: np.ndarray, second_TD: np.ndarray) -> np.ndarray:
    """Cosine of each pair, float32: equal ones of float64 vectors stay equal."""
    from sklearn.metrics.pairwise import paired_cosine_distances

    return (1.0 - paired_cosine_distances(first_TD, second_TD)).astype(np.float32)


def spearman(scores: Sequence[float], cosines: np.ndarray) -> float:
    """Rank correlation of human scores and cosines."""
    from scipy.stats import spearmanr

    return float(spearmanr(scores, cosines)[0])


def pair_scores(first_TD: np.ndarray, second_TD: np.ndarray) -> dict[str, np.ndarray]:
    """Similarities that mteb takes the best of; on unit vectors its dot and Euclidean rank as the cosine."""
    from sklearn.metrics.pairwise import paired_euclidean_distances, paired_manhattan_distances

    scores = {
        "cosine": paired_cosines(first_TD, second_TD),
        "manhattan": -paired_manhattan_distances(first_TD, second_TD),
    }
    if np.allclose(np.linalg.norm(np.concatenate([first_TD, second_TD]), axis=1), 1, atol=UNIT_ATOL):
        return scores
    dots_T = np.array([np.dot(*pair) for pair in zip(first_TD, second_TD, strict=True)])
    return scores | {"dot": dots_T, "euclidean": -paired_euclidean_distances(first_TD, second_TD)}


def average_precision(labels: Labels, scores: np.ndarray) -> float:
    """Area under precision and recall of the pairs labelled 1."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores))


# classification


def draw_samples(
    labels: Labels,
    samples_per_label: int = SAMPLES_PER_LABEL,
    num_experiments: int = NUM_EXPERIMENTS,
    seed: int = SEED,
) -> list[list[int]]:
    """Training rows of each experiment: the first `samples_per_label` of every label in a shuffled order.

    As in mteb, every experiment shuffles the order of the one before with a generator of the same seed.
    """
    order = list(range(len(labels)))
    experiments = []
    for _ in range(num_experiments):
        np.random.RandomState(seed).shuffle(order)
        experiments.append(first_of_each(labels, order, samples_per_label))
    return experiments


def first_of_each(labels: Labels, order: Sequence[int], num: int) -> list[int]:
    """The rows of `order` whose label has been met fewer than `num` times before."""
    seen: dict[Hashable, int] = defaultdict(int)
    rows = []
    for row in order:
        if seen[labels[row]] < num:
            seen[labels[row]] += 1
            rows.append(row)
    return rows


def classify(train_TD: np.ndarray, train_labels: Labels, test_TD: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Labels of the test vectors by a logistic regression of at most 100 iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=100, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train_TD, train_labels)
    return classifier.predict(test_TD)


def classification_values(gold: Labels, predicted_ET: Sequence[Labels]) -> dict[str, float]:
    """Accuracy and macro F1, means over the experiments."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(np.mean([accuracy_score(gold, predicted) for predicted in predicted_ET])),
        "f1": float(np.mean([f1_score(gold, predicted, average="macro") for predicted in predicted_ET])),
    }


# clustering


def v_measures(
    vectors_TD: np.ndarray,
    labels: Labels,
    sample_size: int = CLUSTERED_SAMPLE,
    num_experiments: int = NUM_EXPERIMENTS,
    seed: int = SEED,
) -> np.ndarray:
    """V-measure of mini-batch k-means on each of several samples drawn with replacement."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import v_measure_score

    generator = random.Random(seed)
    gold = np.asarray(labels)
    kmeans = MiniBatchKMeans(
        n_clusters=len(set(labels)), batch_size=512, init="k-means++", n_init=1, random_state=seed
    )
    values = []
    for _ in range(num_experiments):
        rows = generator.choices(range(len(gold)), k=sample_size)
        values.append(v_measure_score(gold[rows], kmeans.fit_predict(vectors_TD[rows])))
    return np.array(values)


# bitext


def bitext_values(nearest_T: Labels) -> dict[str, float]:
    """F1 (weighted over sentences) and accuracy; sentence i is right where its nearest translation is i."""
    from sklearn.metrics import accuracy_score, f1_score

    gold = np.arange(len(nearest_T))
    return {
        "f1": float(f1_score(gold, nearest_T, average="weighted", zero_division=0)),
        "accuracy": float(accuracy_score(gold, nearest_T)),
    }
