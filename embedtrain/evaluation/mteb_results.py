"""Results in mteb's own format and place, `results/MODEL/REVISION/TASK.json`, for its own tools."""

from json import JSONDecodeError
from pathlib import Path
from typing import Any

from mteb.cache import ResultCache
from mteb.results import TaskResult

from embedtrain.artifacts import read_json
from embedtrain.evaluation.mteb_model import MtebModel, evaluate, quiet_mteb
from embedtrain.evaluation.mteb_tasks import METRICS, SPLIT, as_mteb, revision
from embedtrain.evaluation.results import Result
from embedtrain.evaluation.tasks import Task


def is_written(folder: Path, model: MtebModel, task: Task) -> bool:
    """Whether the model's result on these data is there."""
    try:
        saved = read_json(place(folder, model, task.name))
    except (FileNotFoundError, JSONDecodeError):  # half of a file is none
        return False
    return bool(saved["dataset_revision"] == revision(task))


def place(folder: Path, model: MtebModel, task: str) -> Path:
    """Where mteb keeps the result of a task."""
    return Path(ResultCache(folder).get_task_result_path(task, model.mteb_model_meta))


def save(folder: Path, model: MtebModel, found: TaskResult) -> None:
    """Write a result as mteb does, with what it says of the model beside it."""
    with quiet_mteb():
        ResultCache(folder).save_to_cache(found, model.mteb_model_meta)


def as_task_result(model: MtebModel, task: Task, result: Result) -> TaskResult:
    """All that mteb says of a local task, our figures in the places of its own."""
    found = evaluate(model, as_mteb(task))
    scores: dict[str, Any] = found.scores[SPLIT][0]
    for ours, theirs in METRICS[task.mteb_type].items():
        scores[theirs] = result.metrics[ours].value / 100
    scores["main_score"] = result.figure.value / 100
    return found
