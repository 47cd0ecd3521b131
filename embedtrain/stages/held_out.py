"""The texts of evaluation data, which no row should hold."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from embedtrain.data.audit.contamination import TestText
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.tasks import Task

SIDES: Mapping[str, Mapping[str, str]] = {
    "retrieval": {"query": "queries", "document": "documents"},
    "reranking": {"query": "queries", "document": "documents"},
    "similarity": {"text": "first", "paired text": "second"},
    "pair classification": {"text": "first", "paired text": "second"},
    "bitext": {"text": "first", "paired text": "second"},
    "classification": {"text": "test_texts"},
    "clustering": {"text": "texts"},
}
"""By kind of task, where the texts that a model is measured on are."""


def read_test_texts(paths: Iterable[str | Path]) -> Iterator[TestText]:
    """Every text of every evaluation task in the paths, tasks being told apart as `evaluate` does."""
    for path in paths:
        for task in find_tasks(path):
            yield from task_texts(task)


def task_texts(task: Task) -> Iterator[TestText]:
    """The texts of one task."""
    for side, field in SIDES[task.kind].items():
        texts: Sequence[str] = getattr(task, field)
        for text in texts:
            yield TestText(task.name, side, text)
