"""Data of a task of mteb as a task of ours, where mteb measures it in the plain way of its kind."""

from collections.abc import Callable, Mapping
from typing import Any

from datasets import Dataset
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from embedtrain.evaluation.mteb_tasks import METRICS
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Reranking,
    Retrieval,
    Similarity,
    Task,
    take,
)

LARGEST = 500_000  # documents whose vectors are kept


def as_local(task: AbsTask, split: str, subset: str) -> Task | None:
    """The data of one split and subset; none where columns, types or settings are others than ours.

    mteb's prompts belong to its own name of the task, so that is the name.
    """
    kind = next((kind for kind in READERS if isinstance(task, kind)), None)
    if kind is None or task.metadata.type not in METRICS or is_large(task):
        return None
    data = task.dataset or {}
    held = data.get(subset, data)
    try:
        return READERS[kind](task, held, split, str(task.metadata.name))
    except (KeyError, TypeError, ValueError):
        return None


def is_large(task: AbsTask) -> bool:
    """Whether its documents have too many vectors to keep for an interval: mteb forgets them in chunks."""
    if not isinstance(task, AbsTaskRetrieval):
        return False
    splits = [split for held in (task.dataset or {}).values() for split in held.values()]
    return any(len(split["corpus"]) > LARGEST for split in splits)


def retrieval(task: Any, held: Any, split: str, name: str) -> Retrieval | Reranking:
    """Queries with judgments, and documents as mteb writes them: title, a space and text."""
    data = held[split]
    queries, corpus = data["queries"], data["corpus"]
    if "instruction" in queries.column_names or task.ignore_identical_ids or task.skip_first_result:
        raise ValueError("measured in a way of its own")
    titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
    documents = [f"{t or ''} {text}".strip() for t, text in zip(titles, corpus["text"], strict=True)]
    judged = {query: dict(grades) for query, grades in data["relevant_docs"].items() if grades}
    query_ids = tuple(queries["id"])
    kept = [row for row, query in enumerate(query_ids) if query in judged]
    found: dict[str, Any] = {
        "name": name,
        "query_ids": take(query_ids, kept),
        "queries": texts(queries.select(kept), "text"),
        "document_ids": tuple(corpus["id"]),
        "documents": tuple(documents),
        "judged": judged,
    }
    listed = data.get("top_ranked")
    if not listed:
        return Retrieval(**found)
    return Reranking(**found, candidates={query: tuple(listed[query]) for query in found["query_ids"]})


def texts(data: Dataset, column: Any) -> tuple[str, ...]:
    """A column of texts; TypeError where it holds anything else."""
    values = tuple(data[column])
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{column} is no column of texts")
    return values


def similarity(task: Any, held: Any, split: str, name: str) -> Similarity:
    """Pairs with scores."""
    first, second = (texts(held[split], column) for column in task.column_names)
    return Similarity(name, first, second, scores=tuple(held[split]["score"]))


def pairs(task: Any, held: Any, split: str, name: str) -> PairClassification:
    """Pairs labelled 0 or 1."""
    first = texts(held[split], task.input1_column_name)
    second = texts(held[split], task.input2_column_name)
    if task.input1_prompt_type or task.input2_prompt_type:
        raise ValueError("its texts have sides")
    return PairClassification(name, first, second, labels=tuple(held[split][task.label_column_name]))


def bitext(task: Any, held: Any, split: str, name: str) -> Bitext:
    """Sentences and translations."""
    if task.parallel_subsets:
        raise ValueError("subsets are columns of one table")
    return Bitext(name, texts(held[split], "sentence1"), texts(held[split], "sentence2"))


def classification(task: Any, held: Any, split: str, name: str) -> Classification:
    """Texts to learn from and to test on."""
    train, test = held[task.train_split], held[split]
    text, label = task.input_column_name, task.label_column_name
    labels = tuple(train[label]), tuple(test[label])
    return Classification(name, texts(train, text), labels[0], texts(test, text), labels[1])


def clustering(task: Any, held: Any, split: str, name: str) -> Clustering:
    """Labelled texts, where all of them are encoded."""
    if task.max_fraction_of_documents_to_embed is not None or task.max_document_to_embed is not None:
        raise ValueError("a sample of its texts is measured")
    return Clustering(
        name, texts(held[split], task.input_column_name), tuple(held[split][task.label_column_name])
    )


READERS: Mapping[type, Callable[[Any, Any, str, str], Task]] = {
    AbsTaskRetrieval: retrieval,
    AbsTaskSTS: similarity,
    AbsTaskPairClassification: pairs,
    AbsTaskBitextMining: bitext,
    AbsTaskClassification: classification,
    AbsTaskClustering: clustering,
}
