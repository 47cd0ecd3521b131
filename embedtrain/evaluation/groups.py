"""Results as tables of models by tasks: held-out tasks apart from in-domain ones, the best of each marked."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from embedtrain.evaluation.results import Figure, Result

T = TypeVar("T")

METRIC_NAMES = {
    "ndcg@10": "nDCG@10",
    "recall@100": "recall@100",
    "mrr@10": "MRR@10",
    "map@1000": "MAP",
    "spearman": "Spearman",
    "accuracy": "accuracy",
    "f1": "F1",
    "max_ap": "max AP",
    "cosine_ap": "AP (cosine)",
    "v_measure": "V-measure",
}
HELD_OUT, IN_DOMAIN = "Held-out tasks", "In-domain tasks"
MAX_COLUMNS = 5  # tasks beside each other on a terminal of 100 columns
MARK = " *"


@dataclass(frozen=True, slots=True)
class Column:
    """One task: its figures by model, in the order in which models were measured."""

    task: str
    metric: str
    sizes: str
    figures: Mapping[str, Figure]

    @property
    def heading(self) -> str:
        """Task and metric."""
        return f"{self.task} {METRIC_NAMES.get(self.metric, self.metric)}"

    def is_best(self, model: str) -> bool:
        """Whether no model has a higher figure, to the digit that tables show."""
        shown = {name: round(figure.value, 1) for name, figure in self.figures.items()}
        return model in shown and len(shown) > 1 and shown[model] == max(shown.values())


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks that stand in one table, and the models measured on any of them."""

    title: str
    models: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class TextTable:
    """What `show.tables` prints."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str


def group_tasks(results: Sequence[Result], in_domain: Collection[str] = ()) -> list[TaskGroup]:
    """Held-out tasks, then those named in `in_domain`; a group without tasks is left out.

    Only full vectors: those in fewer dims or bits have tables of their own.
    """
    full = [result for result in results if not result.form]
    groups = {
        HELD_OUT: [result for result in full if result.task not in in_domain],
        IN_DOMAIN: [result for result in full if result.task in in_domain],
    }
    return [make_group(title, group) for title, group in groups.items() if group]


def make_group(title: str, results: Sequence[Result]) -> TaskGroup:
    """Models and tasks in the order in which they were measured."""
    models = tuple(dict.fromkeys(result.model for result in results))
    tasks = dict.fromkeys(result.task for result in results)
    columns = (make_column([result for result in results if result.task == task]) for task in tasks)
    return TaskGroup(title, models, tuple(columns))


def make_column(results: Sequence[Result]) -> Column:
    """The column of one task; figures on unlike texts may not stand in one."""
    first = results[0]
    for result in results:
        if dict(result.sizes) != dict(first.sizes):
            raise ValueError(
                f"task '{first.task}': {first.model} was measured on {size_text(first)}, "
                f"{result.model} on {size_text(result)}"
            )
    figures = {result.model: result.figure for result in results}
    return Column(first.task, first.primary, size_text(first), figures)


def size_text(result: Result) -> str:
    """`225 queries, 1,400 documents`, or for a subset `40 of 225 queries, …`."""
    full = result.full_sizes or result.sizes
    return ", ".join(
        f"{num:,} of {full[name]:,} {name}" if num != full[name] else f"{num:,} {name}"
        for name, num in result.sizes.items()
    )


def terminal_tables(results: Sequence[Result], in_domain: Collection[str] = ()) -> list[TextTable]:
    """Tables for `show.tables`, at most five tasks wide."""
    return [
        text_table(group, columns)
        for group in group_tasks(results, in_domain)
        for columns in split(group.columns)
    ]


def split(columns: Sequence[T]) -> Iterator[Sequence[T]]:
    """Runs of at most five columns."""
    for start in range(0, len(columns), MAX_COLUMNS):
        yield columns[start : start + MAX_COLUMNS]


def text_table(group: TaskGroup, columns: Sequence[Column]) -> TextTable:
    """Cells `39.1 ±3.4`; a model without a figure in these columns is left out."""
    models = [model for model in group.models if any(model in column.figures for column in columns)]
    rows = [[model, *(cell(column, model) for column in columns)] for model in models]
    sizes = "; ".join(f"{column.task}: {column.sizes}" for column in columns)
    note = f"±: half of the 95 % interval. *: best. {sizes}."
    return TextTable(group.title, ["model", *(column.heading for column in columns)], rows, note)


def cell(column: Column, model: str) -> str:
    """A figure, half of its interval, and a mark on the best."""
    figure = column.figures.get(model)
    if figure is None:
        return "—"
    return figure.plus_minus + MARK * column.is_best(model)
