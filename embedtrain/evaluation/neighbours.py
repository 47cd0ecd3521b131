"""What a person can look at: nearest texts before and after training, and a plane through the vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np

from embedtrain.evaluation.measure import encode, prompted
from embedtrain.evaluation.tasks import Classification, Clustering, Reranking, Retrieval, Task
from embedtrain.search import search
from embedtrain.show.page import Neighbour, Neighbours

if TYPE_CHECKING:
    from embedtrain.model.st import Embedder, Side

SHOWN_CHARS = 240  # of a neighbour's text
NUM_NEIGHBOURS = 3
NUM_GROUPS = 7  # colours of a plot, less one for the others
OTHER = "other"


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """Points of texts on a plane, with the group of each."""

    title: str
    points: np.ndarray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Matching:
    """A task as queries, texts to find, and a judge of (query, text) positions."""

    queries: Sequence[str]
    documents: Sequence[str]
    sides: tuple[Side, Side]
    is_right: Callable[[int, int], bool]
    same_texts: bool  # the nearest document of a query is itself


def matching(task: Task) -> Matching:
    """Relevant documents, texts of the same label, or the other half of a pair."""
    if isinstance(task, Retrieval | Reranking):
        judged, queries, documents = task.judged, task.query_ids, task.document_ids
        return Matching(
            task.queries,
            task.documents,
            ("query", "document"),
            lambda q, d: judged[queries[q]].get(documents[d], 0) > 0,
            same_texts=False,
        )
    if isinstance(task, Classification | Clustering):
        texts, labels = labelled(task)
        return Matching(texts, texts, ("", ""), lambda q, d: labels[q] == labels[d], same_texts=True)
    return Matching(task.first, task.second, ("", ""), lambda q, d: q == d, same_texts=False)


def labelled(task: Classification | Clustering) -> tuple[Sequence[str], Sequence[object]]:
    """Texts with labels; of a classification task, those it is tested on."""
    if isinstance(task, Clustering):
        return task.texts, task.labels
    return task.test_texts, task.test_labels


def nearest_examples(
    before: Embedder, after: Embedder, task: Task, num: int = 6, seed: int = 0
) -> list[Neighbours]:
    """Nearest texts of `num` queries drawn at random, the same ones for both models."""
    pairs = matching(task)
    num = min(num, len(pairs.queries))
    rows = sorted(np.random.default_rng(seed).choice(len(pairs.queries), num, replace=False).tolist())
    own = (prompted(before, task), prompted(after, task))
    found = {embedder.name: nearest(embedder, pairs, rows) for embedder in own}
    return [
        Neighbours(pairs.queries[row], [(name, lists[number]) for name, lists in found.items()])
        for number, row in enumerate(rows)
    ]


def nearest(embedder: Embedder, pairs: Matching, rows: Sequence[int]) -> list[list[Neighbour]]:
    """The best matches of the queries at `rows`, by one model."""
    queries = encode(embedder, [pairs.queries[row] for row in rows], pairs.sides[0])
    documents = encode(embedder, pairs.documents, pairs.sides[1])
    ids, cosines = search(queries, documents, NUM_NEIGHBOURS + pairs.same_texts)
    return [
        [
            Neighbour(
                shorten(pairs.documents[i], SHOWN_CHARS, placeholder=" …"),
                float(cosine),
                pairs.is_right(row, i),
            )
            for i, cosine in zip(near.tolist(), scores, strict=True)
            if not (pairs.same_texts and i == row)
        ][:NUM_NEIGHBOURS]
        for row, near, scores in zip(rows, ids, cosines, strict=True)
    ]


def embedding_map(embedder: Embedder, task: Task, max_points: int = 600, seed: int = 0) -> EmbeddingMap:
    """The plane of largest spread through a task's vectors: labels, or queries and documents, as groups."""
    pairs = matching(task)
    if isinstance(task, Classification | Clustering):
        groups = frequent([str(label) for label in labelled(task)[1]])
        parts = [(pairs.documents, groups, pairs.sides[1])]
    else:
        names = ("queries", "documents") if pairs.sides[0] else ("first", "second")
        parts = [
            (texts, [name] * len(texts), side)
            for texts, name, side in zip((pairs.queries, pairs.documents), names, pairs.sides, strict=True)
        ]
    own = prompted(embedder, task)
    vectors = np.concatenate([encode(own, texts, side) for texts, _, side in parts])
    labels = [label for _, part, _ in parts for label in part]
    size = min(max_points, len(labels))
    rows = np.sort(np.random.default_rng(seed).choice(len(labels), size, replace=False))
    return EmbeddingMap(embedder.name, plane(vectors[rows]), tuple(labels[row] for row in rows))


def frequent(labels: Sequence[str]) -> list[str]:
    """Labels, all but the most frequent ones replaced by `other`."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    kept = set(sorted(counts, key=lambda label: (-counts[label], label))[:NUM_GROUPS])
    return [label if label in kept else OTHER for label in labels]


def plane(vectors_TD: np.ndarray) -> np.ndarray:
    """Coordinates (T, 2) on the two principal directions, each with its largest part positive."""
    centered = vectors_TD.astype(np.float64) - vectors_TD.mean(axis=0, dtype=np.float64)
    directions = np.linalg.svd(centered, full_matrices=False)[2][:2]
    largest = np.abs(directions).argmax(axis=1)[:, None]
    return centered @ (directions * np.sign(np.take_along_axis(directions, largest, axis=1))).T
