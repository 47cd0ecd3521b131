"""A model on a task: encode its texts once, then the metrics of its kind with their intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedtrain.evaluation import intervals, metrics
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.sharing import encode_blocks
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Pairs,
    Reranking,
    Retrieval,
    Similarity,
    Task,
)
from embedtrain.search import Ranking, bm25_search, search

if TYPE_CHECKING:
    from embedtrain.model.st import Embedder, Side

NUM_RANKED = 100
NUM_CANDIDATES = 200  # ranked again as trec_eval does, so that ties at the hundredth place are its own
NUM_RERANKED = 1000
BM25 = "BM25"
BYTES_PER_DIM = 4  # of a full vector, float32
DRAW_DECIMALS = 4  # of a value in a resample, in points

Figures = dict[str, Figure]
Find = Callable[[np.ndarray, np.ndarray, int], Ranking]


@dataclass
class Remembering:
    """An embedder that is opened on first use and keeps its vectors: every text is encoded once.

    Where `shared`, by all processes together: each of them asks for the same texts in the same order.
    """

    name: str
    open_embedder: Callable[[], Embedder]
    kept: dict[tuple[Side, bool, str], np.ndarray] = field(default_factory=dict)
    of_tasks: dict[str, Remembering] = field(default_factory=dict)
    shared: bool = False
    keeps: bool = True  # False where vectors are too many to keep

    @cached_property
    def embedder(self) -> Embedder:
        """The embedder."""
        return self.open_embedder()

    @property
    def dim(self) -> int:
        """The embedder's."""
        return self.embedder.dim

    def for_task(self, task: str) -> Remembering:
        """With the prompts of the task; vectors under other prompts are other vectors."""
        own = self.embedder.for_task(task)
        if own is self.embedder:
            return self
        fresh = Remembering(self.name, lambda: own, shared=self.shared, keeps=self.keeps)
        return self.of_tasks.setdefault(task, fresh)

    def encode(self, texts: Sequence[str], *, side: Side, normalize: bool = True) -> np.ndarray:
        """Vectors of the texts; only new ones are encoded."""
        if not self.keeps:
            return encode_blocks(self.embedder, texts, side, normalize, self.shared)
        new = list(dict.fromkeys(text for text in texts if (side, normalize, text) not in self.kept))
        if new:
            vectors = encode_blocks(self.embedder, new, side, normalize, self.shared)
            self.kept.update(((side, normalize, t), v) for t, v in zip(new, vectors, strict=True))
        return np.array([self.kept[side, normalize, text] for text in texts])

    def stop_sharing(self) -> None:
        """From here on this process encodes alone."""
        for one in (self, *self.of_tasks.values()):
            one.shared = False


def measure(embedder: Embedder, task: Task, name: str | None = None, find: Find = search) -> Result:
    """All metrics of the task's kind, under the model's prompts for it.

    `name` stands in tables. `find` is the exact search of retrieval and bitext.
    """
    start, own = time.perf_counter(), prompted(embedder, task)
    if isinstance(task, Retrieval | Reranking | Bitext):
        figures = SEARCHES[type(task)](own, task, find)
    else:
        figures = MEASURES[type(task)](own, task)
    result = result_of(name or embedder.name, task, figures, time.perf_counter() - start)
    return replace(result, num_bytes=BYTES_PER_DIM * own.dim)


def prompted(embedder: Embedder, task: Task) -> Embedder:
    """The embedder with its prompts for the task, else for tasks of its type, else its plain ones."""
    own = embedder.for_task(task.name)
    return embedder.for_task(task.mteb_type) if own is embedder else own


def bm25_result(task: Retrieval) -> Result:
    """BM25 on the same task: English stop words removed, no stemming, k1 1.5, b 0.75."""
    start = time.perf_counter()
    order = by_falling_id(task)
    documents = [task.documents[i] for i in order]
    ids, scores = bm25_search(task.queries, documents, NUM_CANDIDATES)
    return result_of(BM25, task, ranking_figures(task, order, ids, scores), time.perf_counter() - start)


def result_of(model: str, task: Task, figures: Figures, seconds: float) -> Result:
    """The result of these figures."""
    return Result(
        model, task.name, task.kind, task.primary, figures, task.sizes, task.full_sizes, round(seconds, 2)
    )


def encode(embedder: Embedder, texts: Sequence[str], side: Side = "") -> np.ndarray:
    """Unit vectors of the texts."""
    return unit(encode_as_given(embedder, texts, side))


def encode_as_given(embedder: Embedder, texts: Sequence[str], side: Side = "") -> np.ndarray:
    """Vectors of the texts, of the length that users get; a text that occurs twice is encoded once."""
    position = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    vectors = embedder.encode(list(position), side=side, normalize=False)
    return np.asarray(vectors)[[position[text] for text in texts]]


def unit(vectors_TD: np.ndarray) -> np.ndarray:
    """Vectors of length 1; zeros stay."""
    lengths_T1 = np.linalg.norm(vectors_TD, axis=1, keepdims=True)
    return np.divide(vectors_TD, lengths_T1, out=np.zeros_like(vectors_TD), where=lengths_T1 > 0)


def points(value: float, draws_R: np.ndarray) -> Figure:
    """A figure in points of 100, of a value between 0 and 1 and its values in all resamples."""
    low, high = intervals.bounds(draws_R)
    draws = tuple(np.round(100 * draws_R, DRAW_DECIMALS).tolist())
    return Figure(100 * float(value), 100 * low, 100 * high, draws)


def measure_retrieval(embedder: Embedder, task: Retrieval, find: Find) -> Figures:
    """Exact search over all documents."""
    order = by_falling_id(task)
    queries = encode(embedder, task.queries, side="query")
    documents = encode(embedder, [task.documents[i] for i in order], side="document")
    ids, scores = find(queries, documents, NUM_CANDIDATES)
    return ranking_figures(task, order, ids, scores)


def by_falling_id(task: Retrieval) -> list[int]:
    """Documents from the highest id down: search breaks ties by position, trec_eval by the higher id."""
    return sorted(range(len(task.document_ids)), key=task.document_ids.__getitem__, reverse=True)


def ranking_figures(task: Retrieval, order: Sequence[int], ids: np.ndarray, scores: np.ndarray) -> Figures:
    """Figures of the candidates of every query; `ids` are positions in `order`."""
    ranked = [
        metrics.rank_documents([task.document_ids[order[i]] for i in row], row_scores, NUM_RANKED)
        for row, row_scores in zip(ids, scores, strict=True)
    ]
    values = metrics.retrieval_values(ranked, [task.judged[name] for name in task.query_ids])
    return {name: mean_figure(value) for name, value in values.items()}


def measure_reranking(embedder: Embedder, task: Reranking, find: Find) -> Figures:
    """Each query's own documents in order of their cosines."""
    queries = encode(embedder, task.queries, side="query")
    documents = encode(embedder, task.documents, side="document")
    position = {name: number for number, name in enumerate(task.document_ids)}
    ranked = []
    for row, name in enumerate(task.query_ids):
        ids = task.candidates[name]
        found, (scores,) = find(queries[row : row + 1], documents[[position[i] for i in ids]], len(ids))
        ranked.append(metrics.rank_documents([ids[i] for i in found[0]], scores, NUM_RERANKED))
    values = metrics.reranking_values(ranked, [task.judged[name] for name in task.query_ids])
    return {name: mean_figure(value) for name, value in values.items()}


def mean_figure(values: np.ndarray) -> Figure:
    """The mean of values drawn again."""
    return points(values.mean(), intervals.bootstrap(intervals.mean_of(values), len(values)))


def encode_pairs(embedder: Embedder, task: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of both columns."""
    vectors = encode_as_given(embedder, task.first + task.second)
    return vectors[: len(task.first)], vectors[len(task.first) :]


def measure_similarity(embedder: Embedder, task: Similarity) -> Figures:
    """Cosines against human scores."""
    cosines = metrics.paired_cosines(*encode_pairs(embedder, task))
    statistic = intervals.spearman_of(np.asarray(task.scores), cosines)
    value = metrics.spearman(task.scores, cosines)
    return {"spearman": points(value, intervals.bootstrap(statistic, len(cosines)))}


def measure_pairs(embedder: Embedder, task: PairClassification) -> Figures:
    """Average precision by cosine, and the best over similarities, which is mteb's main score."""
    labels = np.asarray(task.labels)
    scores = metrics.pair_scores(*encode_pairs(embedder, task))
    values = {name: metrics.average_precision(labels, score) for name, score in scores.items()}
    statistics = {name: intervals.average_precision_of(labels, score) for name, score in scores.items()}
    return {
        "max_ap": points(
            max(values.values()), intervals.bootstrap(intervals.largest_of(statistics.values()), len(labels))
        ),
        "cosine_ap": points(values["cosine"], intervals.bootstrap(statistics["cosine"], len(labels))),
    }


def measure_bitext(embedder: Embedder, task: Bitext, find: Find) -> Figures:
    """Nearest translation of every sentence."""
    first, second = map(unit, encode_pairs(embedder, task))
    nearest = find(first, second, 1)[0][:, 0]
    values, gold = metrics.bitext_values(nearest), np.arange(len(nearest))
    statistic = intervals.f1_of(gold, nearest, weighted=True)
    return {
        "f1": points(values["f1"], intervals.bootstrap(statistic, len(gold))),
        "accuracy": mean_figure((nearest == gold).astype(float)),
    }


def measure_classification(embedder: Embedder, task: Classification) -> Figures:
    """mteb's few-shot experiments; only training texts that one of them uses are encoded."""
    return classification_figures(embedder, task, metrics.draw_samples(task.train_labels))


def classification_figures(
    embedder: Embedder, task: Classification, experiments: Sequence[Sequence[int]]
) -> Figures:
    """Figures of logistic regressions on the training rows of each experiment."""
    used = sorted(set().union(*experiments))
    train = dict(zip(used, encode_as_given(embedder, [task.train_texts[i] for i in used]), strict=True))
    test, gold = encode_as_given(embedder, task.test_texts), np.asarray(task.test_labels)
    predicted = [
        metrics.classify(np.stack([train[i] for i in rows]), [task.train_labels[i] for i in rows], test)
        for rows in experiments
    ]
    values = metrics.classification_values(gold, predicted)
    statistics = {
        "accuracy": [intervals.mean_of((labels == gold).astype(float)) for labels in predicted],
        "f1": [intervals.f1_of(gold, labels, weighted=False) for labels in predicted],
    }
    return {
        name: points(value, intervals.bootstrap_experiments(statistics[name], len(gold)))
        for name, value in values.items()
    }


def measure_clustering(embedder: Embedder, task: Clustering) -> Figures:
    """mteb's k-means on samples; the interval is over the samples."""
    return {"v_measure": mean_figure(metrics.v_measures(encode_as_given(embedder, task.texts), task.labels))}


SEARCHES: Mapping[type, Callable[..., Figures]] = {
    Retrieval: measure_retrieval,
    Reranking: measure_reranking,
    Bitext: measure_bitext,
}
MEASURES: Mapping[type, Callable[..., Figures]] = {
    Similarity: measure_similarity,
    PairClassification: measure_pairs,
    Classification: measure_classification,
    Clustering: measure_clustering,
}
