"""Measures models, and pairs of them, on tasks; finished cells of the table are kept as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from embedtrain import __version__
from embedtrain.artifacts import hash_folder, hash_json
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Pair
from embedtrain.dist import current
from embedtrain.evaluation.inherited import Form, check_forms, measure_in
from embedtrain.evaluation.measure import Remembering, bm25_result, measure
from embedtrain.evaluation.pairs import (
    PairResult,
    check_pair,
    collect_pairs,
    measure_pair,
    names_of,
    searched,
)
from embedtrain.evaluation.report import FORMAT
from embedtrain.evaluation.results import Result, keep_result
from embedtrain.evaluation.sharing import gather_json
from embedtrain.evaluation.tasks import Retrieval, Task
from embedtrain.model.st import Embedder, find_folder, open_sentence_transformer
from embedtrain.show.progress import Bar, progress

if TYPE_CHECKING:
    from embedtrain.evaluation.mteb_named import NamedTask

CELLS, MTEB = "cells", "mteb"
REVISION_CHARS = 16  # of a model's hash, where mteb files its results


@dataclass(frozen=True)
class Wanted:
    """What is measured: models by name, and where they are.

    `partly` are measured on the first task alone, as they are. `forms` are the fewer dims and bits in which
    `models` are measured too, `pairs` names two of `models` each, `named` are tasks of mteb for `models`.
    """

    models: Mapping[str, str]
    tasks: Sequence[Task]
    bm25: bool = True
    partly: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    forms: Sequence[Form] = ()
    named: Sequence[NamedTask] = ()
    mteb_results: bool = False

    def tasks_of(self, name: str) -> Sequence[Task]:
        """The tasks that a model is measured on."""
        return self.tasks if name in self.models else self.tasks[:1]

    def forms_of(self, name: str) -> Sequence[Form]:
        """The forms that its vectors are brought to."""
        return self.forms if name in self.models else ()

    @property
    def num_cells(self) -> int:
        """Results to come, BM25's aside; a form that does not fit a model counts."""
        whole = len(self.models) * (len(self.tasks) * (1 + len(self.forms)) + len(self.named))
        return whole + len(self.partly) + len(self.pairs) * len(searched(self.tasks))


@dataclass(frozen=True)
class Measuring:
    """The models of a table, opened where they are needed, and the folder of finished cells, if any.

    All processes measure the same cells in the same order and share the texts of each. The first one alone
    writes, and what it finds finished at the start is finished for all.
    """

    wanted: Wanted
    device: str
    folder: Path | None
    bar: Bar

    @cached_property
    def models(self) -> dict[str, Remembering]:
        """All models by name, none of them opened yet."""
        paths = {**self.wanted.models, **self.wanted.partly}
        return {
            name: Remembering(name, partial(open_model, name, path, self.device), shared=True)
            for name, path in paths.items()
        }

    @cached_property
    def weights(self) -> dict[str, str]:
        """What the files of each model hash to; nothing where no cells are kept."""
        paths = {**self.wanted.models, **self.wanted.partly} if self.folder else {}
        return {name: hash_folder(find_folder(path)) for name, path in paths.items()}

    @cached_property
    def finished(self) -> frozenset[str]:
        """Names of the files of cells that the first process found at the start."""
        own = sorted(path.name for path in self.folder.glob(f"{CELLS}/*.json")) if self.folder else []
        return frozenset(gather_json(own)[0])

    def keep(self, identity: Sequence[object], task: str, measured: Callable[[], Result]) -> Result:
        """The finished cell of this identity, or a new one; other models, data or versions have another."""
        if self.folder is None:
            return measured()
        name = f"{task}-{hash_json([__version__, FORMAT, *identity])[:16]}.json"
        finished = name in self.finished  # asked of by all processes: the answer is told to all
        if current().rank != 0 and not finished:
            return measured()
        return keep_result(self.folder / CELLS / name, measured)

    def cell(self, name: str, task: Task, *models: str, form: str = "") -> list[object]:
        """The identity of a model's cell, or of that of a pair of `models`, on a task."""
        weights = [self.weights[model] for model in models or (name,)] if self.folder else []
        return [name, weights, task.kind, asdict(task), form]

    def results(self) -> list[Result]:
        """Of all models, each on a task and right after it in all forms of its vectors; then on mteb's."""
        found = []
        for name, embedder in self.models.items():
            for task in self.wanted.tasks_of(name):
                result = self.keep(self.cell(name, task), task.name, partial(measure, embedder, task))
                found.append(result)
                self.bar.advance(1, model=name, task=task.name)
                found += self.in_forms(name, task)
                self.write_mteb(name, task, result)
        return found + [self.on_named(name, one) for one in self.wanted.named for name in self.wanted.models]

    def in_forms(self, name: str, task: Task) -> list[Result]:
        """Of one model on one task, its vectors in fewer dims and bits."""
        embedder, found = self.models[name], []
        for form in self.wanted.forms_of(name):
            if form.fits(embedder.dim):
                cell = self.cell(name, task, form=form.name)
                found.append(self.keep(cell, task.name, partial(measure_in, form, embedder, task)))
            self.bar.advance(1, model=f"{name} in {form.name}", task=task.name)
        return found

    def on_named(self, name: str, one: NamedTask) -> Result:
        """Of one model on a task of mteb."""
        weights, own = self.weights.get(name, ""), current().rank == 0
        folder = self.folder / MTEB if self.folder and own else None
        measured = partial(one.measure, self.models[name], weights[:REVISION_CHARS], folder)
        result = self.keep([name, weights, *one.identity], one.name, measured)
        self.bar.advance(1, model=name, task=one.name)
        return result

    def write_mteb(self, name: str, task: Task, result: Result) -> None:
        """The result in mteb's own format, where that is asked for and it is not there yet."""
        if not self.wanted.mteb_results or self.folder is None or name not in self.wanted.models:
            return
        from embedtrain.evaluation import mteb_results
        from embedtrain.evaluation.mteb_model import MtebModel

        folder, model = self.folder / MTEB, MtebModel(self.models[name], self.weights[name][:REVISION_CHARS])
        if gather_json(mteb_results.is_written(folder, model, task))[0]:
            return
        found = mteb_results.as_task_result(model, task, result)
        if current().rank == 0:
            mteb_results.save(folder, model, found)

    def pair_results(self, own: Sequence[Result]) -> list[PairResult]:
        """Of all pairs on the tasks that have sides, beside the models' own."""
        known = {(result.model, result.task): result for result in own if not result.form}
        for pair in self.wanted.pairs:
            queries, documents = self.models[pair.queries], self.models[pair.documents]
            _, name, _ = names_of(pair)
            for task in searched(self.wanted.tasks):
                cell = self.cell(name, task, pair.queries, pair.documents)
                result = self.keep(cell, task.name, partial(measure_pair, queries, documents, task))
                known[name, task.name] = result
                self.bar.advance(1, model=name, task=task.name)
        return collect_pairs(self.wanted.pairs, self.wanted.tasks, known)

    def check(self) -> None:
        """Raise UserError, before anything is measured, for pairs and cuts that do not fit the models."""
        if self.wanted.forms:
            check_forms(self.wanted.forms, {name: self.models[name].dim for name in self.wanted.models})
        for pair in self.wanted.pairs:
            check_pair(self.models[pair.queries], self.models[pair.documents])


@dataclass(frozen=True)
class Found:
    """Results in the order of a table, those of pairs, and the models."""

    results: list[Result]
    pairs: list[PairResult]
    models: dict[str, Remembering]


def measure_all(wanted: Wanted, machine: Machine, folder: Path | None) -> Found:
    """Measure what is wanted. Finished cells are kept in `folder`: a table that was stopped goes on.

    Where several processes run, all of them call this at once; afterwards each is on its own.
    """
    if machine.threads:
        torch.set_num_threads(machine.threads)
    results = [bm25_result(task) for task in wanted.tasks if wanted.bm25 and isinstance(task, Retrieval)]
    with progress("evaluate", total=wanted.num_cells, unit="task") as bar:
        measuring = Measuring(wanted, machine.device, folder, bar)
        measuring.check()
        results += measuring.results()
        found = Found(results, measuring.pair_results(results), measuring.models)
    for embedder in found.models.values():
        embedder.stop_sharing()
    return found


def open_model(name: str, path: str, device: str) -> Embedder:
    """The model as a server would load it."""
    return open_sentence_transformer(path, device=device, name=name)
