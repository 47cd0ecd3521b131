"""What models keep of their own full vectors in fewer dims and bits: tables, a plot, plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from embedtrain.evaluation.groups import METRIC_NAMES, TextTable, split
from embedtrain.evaluation.inherited import dims_of
from embedtrain.evaluation.kept import kept_of, mean_kept
from embedtrain.evaluation.results import Figure, Result
from embedtrain.show.page import Block, Grid, Measured, Plot, Prose, Section
from embedtrain.show.plots import interval_plot

FULL = "full"
TITLE = "Fewer dims, fewer bits"
TEXT_TITLE = "Kept in fewer dims and bits, per cent of a model's own full vectors"
WORDS = (
    "How much of its own figure a model keeps where its vectors, of queries and documents, are kept small. "
    "Dims: the first ones alone, brought to length 1 again. int8: a byte a dim, between the least and the "
    "greatest value of the stored texts. binary: the signs alone, compared by the bits that differ."
)
PAIRED = "The intervals of what is kept draw the same test texts for both figures."


@dataclass(frozen=True)
class KeptForms:
    """The results of models in all forms, the full one included, that were measured in any other."""

    results: Sequence[Result]

    @cached_property
    def found(self) -> dict[tuple[str, str | None, str], Result]:
        """By model, task and form."""
        return {(result.model, result.task, result.form): result for result in self.results}

    @cached_property
    def models(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(result.model for result in self.results if result.form))

    @cached_property
    def tasks(self) -> list[Result]:
        """A result of each task."""
        return list({result.task: result for result in self.results if result.form}.values())

    @property
    def groups(self) -> list[tuple[str, str | None]]:
        """Headings and names of the tasks, then of their mean, named None, where there are several."""
        tasks: list[tuple[str, str | None]] = [(heading(task), task.task) for task in self.tasks]
        return [*tasks, (f"mean of {len(tasks)} tasks", None)] if len(tasks) > 1 else tasks

    @cached_property
    def forms(self) -> list[str]:
        """Cuts from the longest down, then the others as they were met."""
        names = dict.fromkeys(result.form for result in self.results if result.form)
        return sorted(names, key=dims_of, reverse=True)

    def figure(self, model: str, task: str | None, form: str) -> Figure | None:
        """The model's figure; None where it was not measured so, and for the mean of tasks."""
        result = self.found.get((model, task, form))
        return None if result is None else result.figure

    def kept(self, model: str, task: str | None, form: str) -> Figure | None:
        """Per cent of the full vectors' figure, of a task or the mean; None where one is missing or 0."""
        if task is None:
            return mean_kept([self.kept(model, one.task, form) for one in self.tasks])
        result = self.found.get((model, task, form))
        return None if result is None else kept_of(result, self.found[model, task, ""])

    def size(self, form: str) -> str:
        """`384`, or `384, 768` where the models' vectors are not as long: bytes of a vector."""
        sizes = {r.num_bytes for r in self.results if r.form == form and r.model in self.models}
        return ", ".join(f"{size:,}" for size in sorted(sizes))


def heading(task: Result) -> str:
    """Task and metric."""
    return f"{task.task} {METRIC_NAMES.get(task.primary, task.primary)}"


def kept_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each result in a form, with what it keeps of the full vectors' figure, in per cent."""
    forms = KeptForms(results)
    found = [(one, forms.kept(one.model, one.task, one.form)) for one in results if one.form]
    return [one.to_json() | {"kept": None if kept is None else kept.to_json()} for one, kept in found]


def kept_text_tables(results: Sequence[Result]) -> list[TextTable]:
    """Tables for `show.tables`, at most five models wide; none where no form was measured."""
    forms = KeptForms(results)
    return [kept_text_table(forms, models) for models in split(forms.models)]


def kept_text_table(forms: KeptForms, models: Sequence[str]) -> TextTable:
    """A row for each task and form, cells `98.2 ±0.9`."""
    rows = [
        [name if form == forms.forms[0] else "", form, forms.size(form)]
        + [text_cell(forms.kept(model, task, form)) for model in models]
        for name, task in forms.groups
        for form in forms.forms
    ]
    columns = ["task", "vectors", "bytes", *models]
    return TextTable(TEXT_TITLE, columns, rows, f"±: half of the 95 % interval. {PAIRED}")


def text_cell(figure: Figure | None) -> str:
    """What is kept, and half of its interval."""
    return "—" if figure is None else figure.plus_minus


def kept_sections(results: Sequence[Result]) -> list[Section]:
    """The section of a page; none where no form was measured."""
    forms = KeptForms(results)
    if not forms.models:
        return []
    blocks: list[Block] = [Prose(WORDS), *kept_plots(forms), kept_grid(forms)]
    return [Section(TITLE, blocks)]


def kept_plots(forms: KeptForms) -> list[Block]:
    """What each model keeps in each form, mean over the tasks; left out where nothing can be said."""
    series = {
        model: {FULL: (100.0, 100.0, 100.0)}
        | {
            form: (figure.value, *figure.interval)
            for form in forms.forms
            if (figure := forms.kept(model, None, form)) is not None
        }
        for model in forms.models
    }
    names = [FULL, *forms.forms]
    joined = [name for name in names if name == FULL or dims_of(name)]
    over = forms.groups[-1][0]
    svg = interval_plot(series, names, f"{TITLE}: per cent kept", "per cent kept", joined=joined)
    return [Plot(svg, f"Per cent kept of a model's own full vectors, {over}; bars are 95 % intervals.")]


def kept_grid(forms: KeptForms) -> Grid:
    """A row for each task and form: the figure of each model, and what it keeps of its full vectors'."""
    names = [FULL, *forms.forms]
    rows = [
        [name if form == FULL else "", form, forms.size("" if form == FULL else form)]
        + [cell for model in forms.models for cell in cells(forms, model, task, form)]
        for name, task in forms.groups
        for form in names
    ]
    columns = ["task", "vectors", "bytes"]
    columns += [text for model in forms.models for text in (model, f"{model} keeps, %")]
    first = frozenset(range(len(names), len(rows), len(names)))
    return Grid(columns, rows, caption=PAIRED, rule_before=first)


def cells(forms: KeptForms, model: str, task: str | None, form: str) -> list[Measured | None]:
    """The figure, and what is kept; full vectors keep themselves."""
    if form == FULL:
        figures = [forms.figure(model, task, ""), None]
    else:
        figures = [forms.figure(model, task, form), forms.kept(model, task, form)]
    return [None if figure is None else Measured(figure.value, figure.low, figure.high) for figure in figures]
