"""Tasks of mteb by name: found, their data loaded, and run by mteb itself."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.get_tasks import _TASKS_REGISTRY
from mteb.results import TaskResult

from embedtrain.config.errors import UserError
from embedtrain.config.stages import MtebTask
from embedtrain.evaluation import intervals
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.mteb_data import as_local, is_large
from embedtrain.evaluation.mteb_model import MtebModel, evaluate, quiet_mteb
from embedtrain.evaluation.mteb_results import save
from embedtrain.evaluation.mteb_tasks import METRICS
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.tasks import Sizes, Task

NEAR = 3  # names shown for one that is unknown
ROUNDED = 2e-5  # mteb rounds to five digits


@dataclass(frozen=True)
class NamedTask:
    """A task of mteb whose data are loaded."""

    task: AbsTask

    @property
    def name(self) -> str:
        """mteb's."""
        return str(self.task.metadata.name)

    @cached_property
    def identity(self) -> list[Any]:
        """What its figures depend on beside the model."""
        metadata = self.task.metadata
        subsets = [] if isinstance(self.task, AbsTaskAggregate) else list(self.task.hf_subsets)
        return [mteb.__version__, self.name, metadata.revision, list(self.task.eval_splits), subsets]

    @cached_property
    def main(self) -> str:
        """The main metric: our name for it where we have one, else mteb's."""
        main, metrics = self.task.metadata.main_score, METRICS.get(self.task.metadata.type, {})
        return next((ours for ours, theirs in metrics.items() if theirs == main), main)

    def measure(self, embedder: Remembering, revision: str, folder: Path | None) -> Result:
        """The model's result; mteb's own file of it is written under `folder`, if any.

        The mean over splits and subsets is mteb's. It has an interval where our own measurement of the same
        vectors gives its figures. Vectors are forgotten afterwards.
        """
        start = time.perf_counter()
        own = Remembering(
            embedder.name, lambda: embedder.embedder, shared=embedder.shared, keeps=not is_large(self.task)
        )
        model = MtebModel(own, revision)
        found = evaluate(model, self.task)
        if folder is not None:
            save(folder, model, found)
        parts = list(self.parts(found))
        figure = self.figure(float(found.get_score()), own, parts)
        sizes = sum_sizes([task for task, _ in parts])
        seconds = round(time.perf_counter() - start, 2)
        kind = str(self.task.metadata.type)
        return Result(embedder.name, self.name, kind, self.main, {self.main: figure}, sizes, None, seconds)

    def parts(self, found: TaskResult) -> Iterator[tuple[Task | None, float]]:
        """The data of every split and subset as a task of ours, where they are one, and mteb's main score."""
        for split, subsets in found.scores.items():
            for scores in subsets:
                yield as_local(self.task, split, scores["hf_subset"]), scores["main_score"]

    def figure(
        self, score: float, embedder: Remembering, parts: Sequence[tuple[Task | None, float]]
    ) -> Figure:
        """mteb's score in points, with the interval of ours where they agree on every part."""
        draws = []
        for task, main in parts:
            own = None if task is None else measure(embedder, task).metrics.get(self.main)
            if own is None or abs(own.value / 100 - main) > ROUNDED:
                return Figure(100 * score)
            draws.append(own.draws)
        draws_R = np.mean(draws, axis=0)
        return Figure(100 * score, *intervals.bounds(draws_R), tuple(draws_R.tolist()))


def sum_sizes(tasks: Sequence[Task | None]) -> Sizes:
    """Counts over all parts; how many parts where one of them is no task of ours."""
    known = [task.sizes for task in tasks if task is not None]
    if len(known) < len(tasks):
        return {"parts": len(tasks)}
    return {name: sum(sizes[name] for sizes in known) for name in known[0]}


def open_named(asked: Sequence[MtebTask]) -> list[NamedTask]:
    """The tasks asked for, their data loaded. Raises UserError with all names that mteb does not know."""
    unknown = [unknown_text(one.task) for one in asked if one.task not in _TASKS_REGISTRY]
    if unknown:
        raise UserError("\n".join(unknown))
    named = [NamedTask(find_task(one)) for one in asked]
    for one in named:
        load(one)
    return named


def unknown_text(name: str) -> str:
    """What to tell of a name that mteb does not know."""
    near = [f"'{one}'" for one in get_close_matches(name, _TASKS_REGISTRY, n=NEAR)]
    told = f"did you mean {' or '.join(near)}?" if near else "none is named like it"
    return f"mteb task '{name}': mteb {mteb.__version__} has no such task; {told}"


def find_task(asked: MtebTask) -> AbsTask:
    """The task with the splits and languages asked for."""
    with quiet_mteb():
        task = mteb.get_task(asked.task)
        if set(task.metadata.modalities) != {"text"}:
            held = ", ".join(task.metadata.modalities)
            raise UserError(f"mteb task '{asked.task}': holds {held}; only tasks of text are measured")
        known = list(task.metadata.eval_splits)
        if foreign := [split for split in asked.splits if split not in known]:
            raise UserError(f"mteb task '{asked.task}': no split '{foreign[0]}'; it has {', '.join(known)}")
        try:
            splits, languages = list(asked.splits) or None, list(asked.languages) or None
            return mteb.get_task(asked.task, eval_splits=splits, languages=languages)
        except ValueError:
            known = sorted(task.metadata.languages)
            wanted = ", ".join(asked.languages)
            raise UserError(
                f"mteb task '{asked.task}': nothing in {wanted}; its languages are {', '.join(known)}"
            ) from None


def load(named: NamedTask) -> None:
    """Load the data, of all its tasks where it is made of several. A UserError says how to get them."""
    task = named.task
    for one in task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]:
        try:
            with quiet_mteb():
                one.load_data()
        except Exception as error:
            source = one.metadata.dataset["path"]
            said = str(error).strip().partition("\n")[0]
            raise UserError(
                f"mteb task '{one.metadata.name}': its data '{source}' cannot be loaded "
                f"({type(error).__name__}: {said}). mteb reads them from huggingface.co, or from the cache "
                "of an earlier run: run where that is reachable, or copy the cache of a machine that has "
                "them (HF_HOME names its folder) and set HF_HUB_OFFLINE=1, or give data of your own"
            ) from error
