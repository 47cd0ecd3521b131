"""What is measured on what: one frozen value a task, whole or cut to a fixed sample.

`full_sizes` is none for a whole task; a subset keeps the sizes it was cut from, and reports name both.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeVar

from embedtrain.evaluation.subset import (
    CountTokens,
    refuse_few,
    take_by_label,
    take_judged,
    take_listed,
    take_rows,
)

T = TypeVar("T")
Label = str | int
Sizes = dict[str, int]


@dataclass(frozen=True)
class Retrieval:
    """Queries, documents and judgments: query id → document id → grade, 0 and below not relevant."""

    kind: ClassVar[str] = "retrieval"
    mteb_type: ClassVar[str] = "Retrieval"
    primary: ClassVar[str] = "ndcg@10"
    name: str
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    judged: Mapping[str, Mapping[str, int]]
    full_sizes: Sizes | None = None

    @property
    def sizes(self) -> Sizes:
        """Counts of what is measured."""
        return {"queries": len(self.queries), "documents": len(self.documents)}

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts."""
        return self.queries + self.documents

    def subset(self, max_tokens: int, count_tokens: CountTokens) -> "Retrieval":
        """Some queries, all documents judged for them, and a sample of the others."""
        if sum(count_tokens(self.texts)) <= max_tokens:
            return self
        costs = dict(zip(self.document_ids, count_tokens(self.documents), strict=True))
        query_costs = count_tokens(self.queries)
        queries, kept = take_judged(self.query_ids, query_costs, costs, self.judged, max_tokens)
        refuse_few(self.name, queries, max_tokens)
        return keep_texts(self, queries, kept)


@dataclass(frozen=True)
class Reranking:
    """Queries, each with documents of its own to put in order: query id → ids. Judged as in Retrieval."""

    kind: ClassVar[str] = "reranking"
    mteb_type: ClassVar[str] = "Reranking"
    primary: ClassVar[str] = "map@1000"
    name: str
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    candidates: Mapping[str, Sequence[str]]
    judged: Mapping[str, Mapping[str, int]]
    full_sizes: Sizes | None = None

    @property
    def sizes(self) -> Sizes:
        """Counts of what is measured."""
        return {"queries": len(self.queries), "documents": len(self.documents)}

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts."""
        return self.queries + self.documents

    def subset(self, max_tokens: int, count_tokens: CountTokens) -> "Reranking":
        """Some queries, each with all of its documents."""
        if sum(count_tokens(self.texts)) <= max_tokens:
            return self
        costs = dict(zip(self.document_ids, count_tokens(self.documents), strict=True))
        rows = take_listed(self.query_ids, count_tokens(self.queries), costs, self.candidates, max_tokens)
        refuse_few(self.name, rows, max_tokens)
        kept = {name for row in rows for name in self.candidates[self.query_ids[row]]}
        return keep_texts(self, rows, kept)


@dataclass(frozen=True)
class Pairs:
    """Two columns of texts, one row a pair."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    full_sizes: Sizes | None = None

    @property
    def sizes(self) -> Sizes:
        """Counts of what is measured."""
        return {"pairs": len(self.first)}

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts."""
        return self.first + self.second

    def subset(self, max_tokens: int, count_tokens: CountTokens) -> Self:
        """A sample of the pairs."""
        rows = take_rows((self.first, self.second), max_tokens, count_tokens)
        if len(rows) == len(self.first):
            return self
        return self.keep(refuse_few(self.name, rows, max_tokens))

    def keep(self, rows: Sequence[int]) -> Self:
        """The rows, as a subset."""
        return replace(
            self,
            first=take(self.first, rows),
            second=take(self.second, rows),
            full_sizes=self.full_sizes or self.sizes,
        )


@dataclass(frozen=True)
class Similarity(Pairs):
    """Pairs with a human score of how alike they are (STS)."""

    kind: ClassVar[str] = "similarity"
    mteb_type: ClassVar[str] = "STS"
    primary: ClassVar[str] = "spearman"
    scores: tuple[float, ...] = ()

    def keep(self, rows: Sequence[int]) -> Self:
        """The rows, as a subset."""
        return replace(super().keep(rows), scores=take(self.scores, rows))


@dataclass(frozen=True)
class PairClassification(Pairs):
    """Pairs labelled 1 (the same) or 0."""

    kind: ClassVar[str] = "pair classification"
    mteb_type: ClassVar[str] = "PairClassification"
    primary: ClassVar[str] = "max_ap"
    labels: tuple[int, ...] = ()

    def keep(self, rows: Sequence[int]) -> Self:
        """The rows, as a subset."""
        return replace(super().keep(rows), labels=take(self.labels, rows))


@dataclass(frozen=True)
class Bitext(Pairs):
    """Sentences and their translations."""

    kind: ClassVar[str] = "bitext"
    mteb_type: ClassVar[str] = "BitextMining"
    primary: ClassVar[str] = "f1"


@dataclass(frozen=True)
class Classification:
    """Labelled texts to learn from, a few of each label at a time, and others to test on."""

    kind: ClassVar[str] = "classification"
    mteb_type: ClassVar[str] = "Classification"
    primary: ClassVar[str] = "accuracy"
    name: str
    train_texts: tuple[str, ...]
    train_labels: tuple[Label, ...]
    test_texts: tuple[str, ...]
    test_labels: tuple[Label, ...]
    full_sizes: Sizes | None = None

    @property
    def sizes(self) -> Sizes:
        """Counts of what is measured."""
        labels = len(set(self.train_labels))
        return {"train": len(self.train_texts), "test": len(self.test_texts), "labels": labels}

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts."""
        return self.train_texts + self.test_texts

    def subset(self, max_tokens: int, count_tokens: CountTokens) -> "Classification":
        """Half of the tokens for training texts, the same number of each label; half for test texts."""
        if sum(count_tokens(self.texts)) <= max_tokens:
            return self
        train = take_by_label(self.train_texts, self.train_labels, max_tokens // 2, count_tokens)
        test = take_rows((self.test_texts,), max_tokens // 2, count_tokens)
        known = {self.train_labels[row] for row in train}
        test = [row for row in test if self.test_labels[row] in known]
        return replace(
            self,
            train_texts=take(self.train_texts, train),
            train_labels=take(self.train_labels, train),
            test_texts=take(self.test_texts, refuse_few(self.name, test, max_tokens)),
            test_labels=take(self.test_labels, test),
            full_sizes=self.full_sizes or self.sizes,
        )


@dataclass(frozen=True)
class Clustering:
    """Labelled texts to be grouped without their labels."""

    kind: ClassVar[str] = "clustering"
    mteb_type: ClassVar[str] = "Clustering"
    primary: ClassVar[str] = "v_measure"
    name: str
    texts: tuple[str, ...]
    labels: tuple[Label, ...]
    full_sizes: Sizes | None = None

    @property
    def sizes(self) -> Sizes:
        """Counts of what is measured."""
        return {"texts": len(self.texts), "labels": len(set(self.labels))}

    def subset(self, max_tokens: int, count_tokens: CountTokens) -> "Clustering":
        """A sample of the texts."""
        rows = take_rows((self.texts,), max_tokens, count_tokens)
        if len(rows) == len(self.texts):
            return self
        return replace(
            self,
            texts=take(self.texts, refuse_few(self.name, rows, max_tokens)),
            labels=take(self.labels, rows),
            full_sizes=self.full_sizes or self.sizes,
        )


Searched = TypeVar("Searched", Retrieval, Reranking)
Task = Retrieval | Reranking | Similarity | PairClassification | Bitext | Classification | Clustering


def cut_tasks(tasks: Sequence[Task], max_tokens: int, count_tokens: CountTokens) -> list[Task]:
    """Tasks of at most `max_tokens` in all: equal shares; what a small task leaves goes to larger ones."""
    totals = [sum(count_tokens(task.texts)) for task in tasks]
    cut = {}
    for number, position in enumerate(sorted(range(len(tasks)), key=totals.__getitem__)):
        share = max_tokens // (len(tasks) - number)
        cut[position] = tasks[position].subset(share, count_tokens)
        max_tokens -= min(share, totals[position])
    return [cut[position] for position in range(len(tasks))]


def keep_texts(task: Searched, queries: Sequence[int], documents: Container[str]) -> Searched:
    """The task with the queries at these rows and the documents of these ids."""
    rows = [row for row, name in enumerate(task.document_ids) if name in documents]
    return replace(
        task,
        query_ids=take(task.query_ids, queries),
        queries=take(task.queries, queries),
        document_ids=take(task.document_ids, rows),
        documents=take(task.documents, rows),
        full_sizes=task.full_sizes or task.sizes,
    )


def take(values: Sequence[T], rows: Iterable[int]) -> tuple[T, ...]:
    """The values at `rows`."""
    return tuple(values[row] for row in rows)
