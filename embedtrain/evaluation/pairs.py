"""Asymmetric search: queries by one model, documents by another, beside each model alone.

Vectors are compared by the dot product of unit vectors, so both models must share a space: a student has
learned its teacher's. Only tasks with queries and documents are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.config.stages import Pair
from embedtrain.evaluation.groups import METRIC_NAMES, TextTable, size_text
from embedtrain.evaluation.kept import kept_of, mean_kept
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.tasks import Retrieval, Task
from embedtrain.show.page import Block, Grid, Measured, Prose, Section

if TYPE_CHECKING:
    from embedtrain.model.st import Embedder, Side

TASKS_IN_A_TABLE = 2  # beside each other on a terminal of 100 columns
NOTE = (
    "Kept: per cent of the last row's figure; its interval draws the same queries for both. "
    "±: half of the 95 % interval."
)
WORDS = (
    "Documents are encoded by the large model, once; queries by the small one, each time. The small model "
    "has learned the vectors of the large one, so both lie in one space: a plain dot product compares them."
)


@dataclass(frozen=True)
class Paired:
    """Two embedders as one: the side of a text says which encodes it."""

    queries: Embedder
    documents: Embedder

    @property
    def name(self) -> str:
        """Both names."""
        return pair_name(self.queries.name, self.documents.name)

    @property
    def dim(self) -> int:
        """Dims of a vector of either."""
        return self.queries.dim

    def for_task(self, task: str) -> Paired:
        """Both with the prompts that they have for the task."""
        return Paired(self.queries.for_task(task), self.documents.for_task(task))

    def encode(self, texts: Sequence[str], *, side: Side, normalize: bool = True) -> np.ndarray:
        """By the side's embedder; a text without a side has none, ValueError."""
        if side not in ("query", "document"):
            raise ValueError(f"{self.name}: a pair encodes queries and documents, found side {side!r}")
        embedder = self.queries if side == "query" else self.documents
        return embedder.encode(texts, side=side, normalize=normalize)


@dataclass(frozen=True, slots=True)
class PairResult:
    """One task, searched in three ways: by the model of queries alone, by both, by that of documents."""

    student: Result
    pair: Result
    teacher: Result

    @property
    def rows(self) -> tuple[tuple[str, str, Result, Figure | None], ...]:
        """Models of queries and of documents, the result, and what it keeps of the last."""
        student, teacher = self.student.model, self.teacher.model
        return (
            (student, student, self.student, kept_of(self.student, self.teacher)),
            (student, teacher, self.pair, kept_of(self.pair, self.teacher)),
            (teacher, teacher, self.teacher, None),
        )

    def to_json(self) -> dict[str, Any]:
        """For report.json: the pair's own result, and per cent kept by both rows above the last."""
        alone, both, _ = (row[3] for row in self.rows)
        return {
            "queries": self.student.model,
            "documents": self.teacher.model,
            "task": self.pair.task,
            "primary": self.pair.primary,
            "result": self.pair.to_json(),
            "figures": {
                way: result.figure.to_json()
                for way, result in (("student", self.student), ("pair", self.pair), ("teacher", self.teacher))
            },
            "kept": {
                way: None if figure is None else figure.to_json()
                for way, figure in (("student", alone), ("pair", both))
            },
        }


def pair_name(queries: str, documents: str) -> str:
    """How tables and files call a pair."""
    return f"{queries} → {documents}"


def searched(tasks: Sequence[Task]) -> list[Retrieval]:
    """The tasks that a pair is measured on."""
    return [task for task in tasks if isinstance(task, Retrieval)]


def check_pair(queries: Remembering, documents: Remembering) -> None:
    """Raise UserError where the two have no common space."""
    if queries.dim != documents.dim:
        raise UserError(
            f"the pair '{queries.name}' for queries, '{documents.name}' for documents: vectors of "
            f"{queries.dim} and of {documents.dim} dims cannot be compared"
        )


def measure_pair(queries: Remembering, documents: Remembering, task: Retrieval) -> Result:
    """One task, searched by both; what either has encoded already is not encoded again."""
    check_pair(queries, documents)
    return measure(Paired(queries, documents), task)


def collect_pairs(
    pairs: Sequence[Pair], tasks: Sequence[Task], results: Mapping[tuple[str, str], Result]
) -> list[PairResult]:
    """The three results of each pair and task; `results` by model, or name of a pair, and task."""
    return [
        PairResult(*(results[name, task.name] for name in names_of(pair)))
        for pair in pairs
        for task in searched(tasks)
    ]


def names_of(pair: Pair) -> tuple[str, str, str]:
    """What the results of a pair are called: the model of queries, both, the model of documents."""
    return pair.queries, pair_name(pair.queries, pair.documents), pair.documents


def by_pair(found: Sequence[PairResult]) -> Iterator[list[PairResult]]:
    """The results of each pair, in the order of its tasks."""
    for name in dict.fromkeys(result.pair.model for result in found):
        yield [result for result in found if result.pair.model == name]


def pair_tables(found: Sequence[PairResult], in_domain: Collection[str] = ()) -> list[TextTable]:
    """Tables for `show.tables`: a pair's tasks, two beside each other."""
    return [
        pair_table(group[start : start + TASKS_IN_A_TABLE], in_domain)
        for group in by_pair(found)
        for start in range(0, len(group), TASKS_IN_A_TABLE)
    ]


def pair_table(group: Sequence[PairResult], in_domain: Collection[str]) -> TextTable:
    """One pair on some tasks: three rows, and for each task its figure and what is kept."""
    title = f"Asymmetric search: queries by {group[0].student.model}, documents by {group[0].teacher.model}"
    rows = ways(group, lambda figure: "—" if figure is None else figure.plus_minus)
    return TextTable(title, headings(group), rows, f"{NOTE} {sizes(group, in_domain)}")


def headings(group: Sequence[PairResult]) -> list[str]:
    """Of a table's columns."""
    found = [result.pair for result in group]
    tasks = [(f"{r.task} {METRIC_NAMES.get(r.primary, r.primary)}", "kept, %") for r in found]
    return ["queries by", "documents by", *(name for pair in tasks for name in pair)]


def ways(group: Sequence[PairResult], cell: Callable[[Figure | None], Any]) -> list[list[Any]]:
    """The three rows: who encodes, then for each task the figure and what is kept, as `cell` writes them."""
    rows = []
    for way in zip(*(result.rows for result in group), strict=True):
        cells = [cell(figure) for _, _, result, kept in way for figure in (result.figure, kept)]
        rows.append([way[0][0], way[0][1], *cells])
    return rows


def sizes(group: Sequence[PairResult], in_domain: Collection[str]) -> str:
    """What the tasks hold, and which are of the training sources' own."""
    held = "; ".join(f"{result.pair.task}: {size_text(result.pair)}" for result in group)
    own = ", ".join(result.pair.task for result in group if result.pair.task in in_domain)
    return f"{held}." + (f" In-domain: {own}." if own else "")


def pair_sections(found: Sequence[PairResult], in_domain: Collection[str] = ()) -> list[Section]:
    """The section of a page; none where no pair was measured."""
    blocks: list[Block] = [Prose(WORDS)]
    for group in by_pair(found):
        blocks.append(pair_grid(group, in_domain))
        blocks.append(Prose(summary(group)))
    return [Section("Asymmetric search", blocks)] if found else []


def pair_grid(group: Sequence[PairResult], in_domain: Collection[str]) -> Grid:
    """The table of one pair on all its tasks."""
    rows = ways(group, lambda f: None if f is None else Measured(f.value, f.low, f.high))
    caption = f"Kept: per cent of the last row. {sizes(group, in_domain)}"
    return Grid(headings(group), rows, caption=caption, strong_rows=frozenset({1}))


def summary(group: Sequence[PairResult]) -> str:
    """What is kept over all tasks of a pair, in words."""
    student, teacher = group[0].student.model, group[0].teacher.model
    alone, both = (mean_kept([result.rows[way][3] for result in group]) for way in (0, 1))
    if alone is None or both is None:
        return f"{teacher} alone finds nothing on one of the tasks, so there is no mean of what is kept."
    over = f", the mean of {len(group)} tasks" if len(group) > 1 else ""
    return (
        f"With {student} for queries and {teacher} for documents, {kept_text(both)} of what {teacher} finds "
        f"alone is kept{over}; with {student} for both, {kept_text(alone)}."
    )


def kept_text(figure: Figure) -> str:
    """`94.2 % (92.0–96.1)`."""
    low, high = figure.interval
    return f"{figure.value:.1f} % ({low:.1f}–{high:.1f})"
