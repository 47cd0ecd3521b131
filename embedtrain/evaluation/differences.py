"""How much better or worse models are than the first of a table, with intervals of the difference.

Models of one task share their resamples, so the difference is drawn again pairwise: what makes a query hard
for both moves it not, and its interval is narrower than those of the two figures. Dimensions: R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from embedtrain.evaluation.groups import METRIC_NAMES, TextTable
from embedtrain.evaluation.kept import drawn
from embedtrain.evaluation.measure import BM25
from embedtrain.evaluation.results import Figure, Result
from embedtrain.show.page import Grid, Prose, Section

WIDE = 3  # models beside each other on a terminal of 100 columns
MARK = " *"
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

    @cached_property
    def found(self) -> dict[tuple[str, str], Result]:
        """Full vectors by model and task: those with draws."""
        own = [result for result in self.results if not result.form and result.model != BM25]
        return {(result.model, result.task): result for result in own if result.figure.draws}

    @cached_property
    def models(self) -> list[str]:
        """In the order in which they were measured; the first is what the others are compared with."""
        return list(dict.fromkeys(model for model, _ in self.found))

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
    def rows(self) -> list[tuple[str, str | None]]:
        """Headings and names of the tasks, then of their mean, named None, where there are several."""
        first = [self.found[self.models[0], task] for task in self.tasks]
        named: list[tuple[str, str | None]] = [
            (f"{one.task} {METRIC_NAMES.get(one.primary, one.primary)}", one.task) for one in first
        ]
        return [*named, (f"mean of {len(named)} tasks", None)] if len(named) > 1 else named

    def on(self, task: str) -> list[str]:
        """The models measured on a task."""
        return [model for model in self.models if (model, task) in self.found]

    def figure(self, model: str, task: str | None) -> Figure | None:
        """A model's difference on a task, or the mean over all; None where it was not measured on them."""
        tasks = self.tasks if task is None else [task]
        if any((model, name) not in self.found for name in tasks):
            return None
        pairs = [(self.found[model, name].figure, self.found[self.models[0], name].figure) for name in tasks]
        draws_R = np.mean([np.subtract(own.draws, other.draws) for own, other in pairs], axis=0)
        return drawn(float(np.mean([own.value - other.value for own, other in pairs])), draws_R)


def differences_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Plain values; the task of a mean over tasks is None."""
    found = Differences(results)
    return [
        {"model": model, "less": found.models[0], "task": task, **figure.to_json()}
        for model in found.others
        for _, task in found.rows
        if (figure := found.figure(model, task)) is not None
    ]


def difference_tables(results: Sequence[Result]) -> list[TextTable]:
    """Tables for `show.tables`, at most three models wide; none where there are not two models."""
    found = Differences(results)
    title = f"{TITLE} from {found.models[0]}" if found.tasks else ""
    return [
        TextTable(title, ["task", *models], cells(found, models), NOTE)
        for models in (found.others[n : n + WIDE] for n in range(0, len(found.others), WIDE))
    ]


def difference_sections(results: Sequence[Result]) -> list[Section]:
    """The section of a page; none where there are not two models."""
    found = Differences(results)
    if not found.tasks:
        return []
    words = Prose(WORDS.format(first=found.models[0]))
    return [Section(TITLE, [words, Grid(["task", *found.others], cells(found, found.others), caption=NOTE)])]


def cells(found: Differences, models: Sequence[str]) -> list[list[str]]:
    """A row for each task and their mean."""
    return [[heading, *(cell(found.figure(model, task)) for model in models)] for heading, task in found.rows]


def cell(figure: Figure | None) -> str:
    """`+3.4 [-0.1, +7.2]`, marked where zero is outside."""
    if figure is None:
        return "—"
    low, high = figure.interval
    return f"{figure.value:+.1f} [{low:+.1f}, {high:+.1f}]" + MARK * (low > 0 or high < 0)
