"""How much better or worse models are than the first of a table, with intervals of the difference.

Models of one task share their resamples, so the difference is drawn again pairwise: what makes a query hard
for both moves it not, and its interval is narrower than those of the two figures. Dimensions: R resamples.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from embedtrain.evaluation.groups import MARK, METRIC_NAMES, TextTable
from embedtrain.evaluation.kept import drawn, paired_draws
from embedtrain.evaluation.measure import BM25
from embedtrain.evaluation.results import Figure, Result
from embedtrain.show.page import Grid, Prose, Section

WIDE = 3  # models beside each other on a terminal of 100 columns
TITLE = "Differences"
NOTE = "Points of 100. Intervals of 95 % draw the same test texts for both models. *: zero is outside."
WORDS = (
    "Each model less the first one, {first}, on the same test texts. The interval is that of the difference, "
    "mostly narrower than those of the two figures. It tells of other test texts, not of another seed."
)


@dataclass(frozen=True)
class Differences:
    """The models of a table after the first, less that one, on the tasks that both were measured on."""

    results: Sequence[Result]
    in_domain: Collection[str] = ()

    @cached_property
    def found(self) -> dict[tuple[str, str], Result]:
        """Full vectors by model and task: those with draws."""
        return {(result.model, result.task): result for result in self.own if result.figure.draws}

    @property
    def own(self) -> list[Result]:
        """Of models, as they are."""
        return [result for result in self.results if not result.form and result.model != BM25]

    @cached_property
    def models(self) -> list[str]:
        """In the order in which they were measured; the first is what the others are compared with."""
        return list(dict.fromkeys(result.model for result in self.own))

    @property
    def others(self) -> list[str]:
        """The models that are compared with the first one."""
        return self.models[1:] if self.tasks else []

    @cached_property
    def tasks(self) -> list[str]:
        """Those of the first model that any other has too."""
        first = self.models[0] if self.models else ""
        return [task for model, task in self.found if model == first and len(self.on(task)) > 1]

    @property
    def rows(self) -> list[tuple[str, tuple[str, ...]]]:
        """Headings and tasks of the rows: held-out tasks, their mean, then in-domain ones and theirs."""
        groups = {
            "held-out": [task for task in self.tasks if task not in self.in_domain],
            "in-domain": [task for task in self.tasks if task in self.in_domain],
        }
        rows: list[tuple[str, tuple[str, ...]]] = []
        for kind, tasks in groups.items():
            rows += [(self.heading(task), (task,)) for task in tasks]
            rows += [(f"mean of {len(tasks)} {kind} tasks", tuple(tasks))] if len(tasks) > 1 else []
        return rows

    def heading(self, task: str) -> str:
        """Task and metric."""
        metric = self.found[self.models[0], task].primary
        return f"{task} {METRIC_NAMES.get(metric, metric)}"

    def on(self, task: str) -> list[str]:
        """The models measured on a task."""
        return [model for model in self.models if (model, task) in self.found]

    def figure(self, model: str, tasks: Sequence[str]) -> Figure | None:
        """A model's difference, the mean over these tasks; None where it was not measured on all of them."""
        if any((model, task) not in self.found for task in tasks):
            return None
        pairs = [(self.found[model, task], self.found[self.models[0], task]) for task in tasks]
        draws_R = np.mean([np.subtract(*paired_draws(*pair)) for pair in pairs], axis=0)
        return drawn(float(np.mean([own.figure.value - other.figure.value for own, other in pairs])), draws_R)


def differences_json(results: Sequence[Result], in_domain: Collection[str] = ()) -> list[dict[str, Any]]:
    """Plain values; of the mean over several tasks, all of these."""
    found = Differences(results, in_domain)
    return [
        {"model": model, "less": found.models[0], "tasks": list(tasks), **figure.to_json()}
        for model in found.others
        for _, tasks in found.rows
        if (figure := found.figure(model, tasks)) is not None
    ]


def difference_tables(results: Sequence[Result], in_domain: Collection[str] = ()) -> list[TextTable]:
    """Tables for `show.tables`, at most three models wide; none where there are not two models."""
    found = Differences(results, in_domain)
    title = f"{TITLE} from {found.models[0]}" if found.tasks else ""
    return [
        TextTable(title, ["task", *models], rows, NOTE)
        for models in (found.others[n : n + WIDE] for n in range(0, len(found.others), WIDE))
        if (rows := cells(found, models))
    ]


def difference_sections(results: Sequence[Result], in_domain: Collection[str] = ()) -> list[Section]:
    """The section of a page; none where there are not two models."""
    found = Differences(results, in_domain)
    if not found.tasks:
        return []
    words = Prose(WORDS.format(first=found.models[0]))
    return [Section(TITLE, [words, Grid(["task", *found.others], cells(found, found.others), caption=NOTE)])]


def cells(found: Differences, models: Sequence[str]) -> list[list[str]]:
    """A row for each task that one of these models was measured on, and for means over tasks."""
    rows = [(heading, [found.figure(model, tasks) for model in models]) for heading, tasks in found.rows]
    return [[heading, *map(cell, figures)] for heading, figures in rows if any(figures)]


def cell(figure: Figure | None) -> str:
    """`+3.4 [-0.1, +7.2]`, marked where zero is outside."""
    if figure is None:
        return "—"
    value, low, high = (round(x, 1) + 0.0 for x in (figure.value, *figure.interval))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" + MARK * (low > 0 or high < 0)
