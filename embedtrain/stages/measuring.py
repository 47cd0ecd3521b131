"""Measures models, and pairs of them, on tasks; finished cells of the table are kept as files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch

from embedtrain import __version__
from embedtrain.artifacts import hash_folder, hash_json
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Pair
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
from embedtrain.evaluation.tasks import Retrieval, Task
from embedtrain.model.st import Embedder, find_folder, open_sentence_transformer
from embedtrain.show.progress import Bar, progress

CELLS = "cells"


@dataclass(frozen=True)
class Wanted:
    """What is measured: models by name, and where they are.

    `partly` are measured on the first task alone, as they are. `forms` are the fewer dims and bits in which
    `models` are measured too, `pairs` names two of `models` each.
    """

    models: Mapping[str, str]
    tasks: Sequence[Task]
    bm25: bool = True
    partly: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    forms: Sequence[Form] = ()

    def tasks_of(self, name: str) -> Sequence[Task]:
        """The tasks that a model is measured on."""
        return self.tasks if name in self.models else self.tasks[:1]

    def forms_of(self, name: str) -> Sequence[Form]:
        """The forms that its vectors are brought to."""
        return self.forms if name in self.models else ()

    @property
    def num_cells(self) -> int:
        """Results to come, BM25's aside; a form that does not fit a model counts."""
        whole = len(self.models) * len(self.tasks) * (1 + len(self.forms))
        return whole + len(self.partly) + len(self.pairs) * len(searched(self.tasks))


@dataclass(frozen=True)
class Measuring:
    """The models of a table, opened where they are needed, and the folder of finished cells, if any."""

    wanted: Wanted
    device: str
    folder: Path | None
    bar: Bar

    @cached_property
    def models(self) -> dict[str, Remembering]:
        """All models by name, none of them opened yet."""
        paths = {**self.wanted.models, **self.wanted.partly}
        return {
            name: Remembering(name, partial(open_model, name, path, self.device))
            for name, path in paths.items()
        }

    @cached_property
    def weights(self) -> dict[str, str]:
        """What the files of each model hash to; nothing where no cells are kept."""
        paths = {**self.wanted.models, **self.wanted.partly} if self.folder else {}
        return {name: hash_folder(find_folder(path)) for name, path in paths.items()}

    def cell(self, name: str, task: Task, *models: str, form: str = "") -> Path | None:
        """The file of one cell: other models, another task, version, form or format have another."""
        if self.folder is None:
            return None
        weights = [self.weights[model] for model in models or (name,)]
        identity = hash_json([__version__, FORMAT, name, weights, task.kind, asdict(task), form])
        return self.folder / CELLS / f"{task.name}-{identity[:16]}.json"

    def results(self) -> list[Result]:
        """Of all models, each on a task and right after it in all forms of its vectors."""
        found = []
        for name, embedder in self.models.items():
            for task in self.wanted.tasks_of(name):
                found.append(keep_result(self.cell(name, task), partial(measure, embedder, task)))
                self.bar.advance(1, model=name, task=task.name)
                found += self.in_forms(name, task)
        return found

    def in_forms(self, name: str, task: Task) -> list[Result]:
        """Of one model on one task, its vectors in fewer dims and bits."""
        embedder, found = self.models[name], []
        for form in self.wanted.forms_of(name):
            if form.fits(embedder.dim):
                file = self.cell(name, task, form=form.name)
                found.append(keep_result(file, partial(measure_in, form, embedder, task)))
            self.bar.advance(1, model=f"{name} in {form.name}", task=task.name)
        return found

    def pair_results(self, own: Sequence[Result]) -> list[PairResult]:
        """Of all pairs on the tasks that have sides, beside the models' own."""
        known = {(result.model, result.task): result for result in own if not result.form}
        for pair in self.wanted.pairs:
            queries, documents = self.models[pair.queries], self.models[pair.documents]
            _, name, _ = names_of(pair)
            for task in searched(self.wanted.tasks):
                file = self.cell(name, task, pair.queries, pair.documents)
                result = keep_result(file, partial(measure_pair, queries, documents, task))
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
    """Measure what is wanted. Finished cells are kept in `folder`: a table that was stopped goes on."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    results = [bm25_result(task) for task in wanted.tasks if wanted.bm25 and isinstance(task, Retrieval)]
    with progress("evaluate", total=wanted.num_cells, unit="task") as bar:
        measuring = Measuring(wanted, machine.device, folder, bar)
        measuring.check()
        results += measuring.results()
        return Found(results, measuring.pair_results(results), measuring.models)


def open_model(name: str, path: str, device: str) -> Embedder:
    """The model as a server would load it."""
    return open_sentence_transformer(path, device=device, name=name)
