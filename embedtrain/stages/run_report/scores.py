"""How far apart a model puts right and wrong texts: cosines of held-out pairs, before and after training.

Dimensions: Q queries drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.evaluation.measure import Remembering, encode, mean_figure, prompted
from embedtrain.evaluation.neighbours import Matching, labelled, matching
from embedtrain.evaluation.results import Figure
from embedtrain.evaluation.tasks import (
    Classification,
    Clustering,
    PairClassification,
    Reranking,
    Retrieval,
    Similarity,
    Task,
)
from embedtrain.show.page import Block, Grid, Measured, Plot, Plots, Prose, Section
from embedtrain.show.plots import histogram_plot

NUM_QUERIES, NUM_POSITIVES, NUM_NEGATIVES = 500, 5, 20
NUM_BINS = 40
POSITIVE, RANDOM, OWN = "positives", "random other texts", "wrong texts of the query's own list"
WORDS = (
    "Cosines of queries with a text that answers them, and with texts that do not. The further apart the two "
    "hills, the easier a threshold, and a search, can tell them."
)
CAPTION = (
    "AUC: how often a positive lies above a wrong text of the same query, in per cent (50: chance), with its "
    "95 % interval over queries. Overlap: the area under both hills, of 100."
)

Lists = Callable[[int], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Judged:
    """Positions of texts that answer a query, and of some that do not, by query; `name` is of the latter."""

    queries: tuple[int, ...]
    positives: tuple[tuple[int, ...], ...]
    negatives: tuple[tuple[int, ...], ...]
    name: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """The cosines of one model, query by query."""

    model: str
    positives: tuple[np.ndarray, ...]
    negatives: tuple[np.ndarray, ...]

    @property
    def auc(self) -> Figure:
        """The mean over queries of the share of (positive, negative) that stand in order; half for a tie."""
        return mean_figure(
            np.array([ordered(p, n) for p, n in zip(self.positives, self.negatives, strict=True)])
        )

    def counts(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of positives and negatives in the bins."""
        first, second = (np.concatenate(parts) for parts in (self.positives, self.negatives))
        return np.histogram(first, edges)[0], np.histogram(second, edges)[0]

    def overlap(self, edges: np.ndarray) -> float:
        """The area under both histograms, of 100."""
        first, second = (counts / counts.sum() for counts in self.counts(edges))
        return 100 * float(np.minimum(first, second).sum())


def ordered(positives: np.ndarray, negatives: np.ndarray) -> float:
    """How often a positive lies above a negative, half for a tie."""
    apart = positives[:, None] - negatives
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


def score_sections(models: Sequence[Remembering], task: Task, seed: int = 0) -> list[Section]:
    """The section on some models' cosines; none where a task has no right and wrong texts."""
    judged = judge(task, seed)
    if judged is None:
        return []
    pairs = matching(task)
    found = [contrast(model, task, pairs, judged) for model in models]
    values = np.concatenate([v for one in found for v in (*one.positives, *one.negatives)])
    edges = np.linspace(values.min() - 1e-6, values.max() + 1e-6, NUM_BINS + 1)
    plots = [histogram(one, judged.name, edges) for one in found]
    rows = [row_of(one, edges) for one in found]
    columns = ["model", "mean cosine of positives", "of wrong texts", "AUC", "overlap"]
    caption = f"{task.name}, {len(judged.queries):,} queries; wrong texts: {judged.name}. {CAPTION}"
    blocks: list[Block] = [Prose(WORDS), Plots(plots), Grid(columns, rows, caption)]
    return [Section("Scores of right and wrong texts", blocks)]


def histogram(one: Contrast, name: str, edges: np.ndarray) -> Plot:
    """Both hills of one model."""
    positives, negatives = one.counts(edges)
    groups = [{name: negatives.tolist()}, {POSITIVE: positives.tolist()}]
    return Plot(
        histogram_plot(edges.tolist(), groups, f"Cosines by {one.model}", "cosine"), heading=one.model
    )


def row_of(one: Contrast, edges: np.ndarray) -> list[object]:
    """Means, AUC and overlap."""
    means = (float(np.concatenate(part).mean()) for part in (one.positives, one.negatives))
    return [
        one.model,
        *means,
        Measured(one.auc.value, one.auc.low, one.auc.high),
        Measured(one.overlap(edges)),
    ]


def contrast(model: Remembering, task: Task, pairs: Matching, judged: Judged) -> Contrast:
    """Cosines of the judged pairs by a model, under its prompts for the task."""
    own = prompted(model, task)
    queries = encode(own, [pairs.queries[row] for row in judged.queries], pairs.sides[0])
    used = sorted({n for lists in (judged.positives, judged.negatives) for part in lists for n in part})
    places = {number: place for place, number in enumerate(used)}
    documents = encode(own, [pairs.documents[number] for number in used], pairs.sides[1])

    def cosines(lists: Sequence[Sequence[int]]) -> tuple[np.ndarray, ...]:
        return tuple(
            documents[[places[number] for number in part]] @ query
            for query, part in zip(queries, lists, strict=True)
        )

    return Contrast(model.name, cosines(judged.positives), cosines(judged.negatives))


def judge(task: Task, seed: int) -> Judged | None:
    """Queries drawn at random, their positives, and wrong texts: the query's own, or random ones.

    None for a task of scored or labelled pairs, whose texts have no others to choose from.
    """
    if isinstance(task, Similarity | PairClassification):
        return None
    pairs, generator = matching(task), np.random.default_rng(seed)
    right, wrong = answers(task), candidates(task)
    found: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    for row in generator.permutation(len(pairs.queries)).tolist():
        positives = [n for n in right(row) if not (pairs.same_texts and n == row)]
        negatives = wrong(row) if wrong else others(pairs, row, generator)
        if positives and negatives and len(found) < NUM_QUERIES:
            found.append(
                (row, draw(positives, NUM_POSITIVES, generator), draw(negatives, NUM_NEGATIVES, generator))
            )
    if not found:
        return None
    rows, positives_Q, negatives_Q = zip(*found, strict=True)
    return Judged(rows, positives_Q, negatives_Q, OWN if wrong else RANDOM)


def answers(task: Task) -> Lists:
    """Positions of the texts that answer the query at a position."""
    if isinstance(task, Retrieval | Reranking):
        place = {name: number for number, name in enumerate(task.document_ids)}
        judged = [task.judged.get(name, {}) for name in task.query_ids]
        return lambda row: [place[d] for d, grade in judged[row].items() if grade > 0 and d in place]
    if isinstance(task, Classification | Clustering):
        labels = labelled(task)[1]
        of_label: dict[object, list[int]] = {}
        for number, label in enumerate(labels):
            of_label.setdefault(label, []).append(number)
        return lambda row: of_label[labels[row]]
    return lambda row: [row]


def candidates(task: Task) -> Lists | None:
    """Positions of the wrong texts that a query brings along; None where it brings none."""
    if not isinstance(task, Reranking):
        return None
    place, right = {name: number for number, name in enumerate(task.document_ids)}, answers(task)
    listed = [[place[d] for d in task.candidates[name]] for name in task.query_ids]
    return lambda row: [number for number in listed[row] if number not in right(row)]


def others(pairs: Matching, row: int, generator: np.random.Generator) -> list[int]:
    """Random texts that do not answer the query, each once."""
    drawn = generator.integers(len(pairs.documents), size=2 * NUM_NEGATIVES).tolist()
    return [n for n in dict.fromkeys(drawn) if not pairs.is_right(row, n)]


def draw(numbers: Sequence[int], most: int, generator: np.random.Generator) -> tuple[int, ...]:
    """At most so many of the numbers."""
    return tuple(generator.permutation(np.asarray(numbers))[:most].tolist())
