"""The command `embedtrain convert`: what people already have in, a folder of canonical rows out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from embedtrain.config.errors import UserError, nearest
from embedtrain.data.convert.tasks import TASKS, convert_records
from embedtrain.data.formats.request import Request
from embedtrain.data.formats.table import detect_format, find_format, unused_keys
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows, write_store
from embedtrain.show.progress import Bar, progress
from embedtrain.show.tables import print_table


@dataclass(slots=True)
class Counts:
    """What became of one path."""

    path: str
    how: str
    rows: int = 0
    graded: int = 0
    positives: int = 0
    negatives: int = 0
    unused: Sequence[str] = ()
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows += 1
        self.graded += row.score is not None
        self.positives += len(row.positives)
        self.negatives += len(row.negatives)

    def a_row(self, number: int) -> float | None:
        """How many there are a row."""
        return number / self.rows if self.rows else None


def convert_files(
    paths: Sequence[str],
    out: Path,
    *,
    format: str | None = None,
    task: str | None = None,
    columns: Mapping[str, str] | None = None,
    corpus: str | None = None,
    queries: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    instruction: str | None = None,
    source: str | None = None,
    skip_faulty: bool = False,
) -> None:
    """Write the rows of all paths to the folder `out` and print what they hold.

    `instruction` and `source` fill rows that have none. Raises UserError with all faults found and writes
    nothing then; with `skip_faulty` records with faults are left out and counted.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; remove it or give another name")
    if format is not None and task is not None:
        raise UserError("--format and --task exclude each other: a task names its own columns")
    if task is not None and task not in TASKS:
        raise UserError(f"--task {task}: no such task; {nearest(task, TASKS)}")
    problems = Problems()
    requests = [Request(path, problems, corpus, queries, columns or None, split) for path in paths]
    counts: list[Counts] = []
    with progress("convert", unit="row", total=limit) as bar:
        rows = read_all(requests, counts, format, task)
        rows = (fill(row, instruction, source) for row in checked(rows, limit, problems, skip_faulty, bar))
        write_store(out, rows, facts={"converted from": list(paths)})
    print_counts(out, counts, problems)


def read_all(
    requests: Sequence[Request], counts: list[Counts], format: str | None, task: str | None
) -> Iterator[Row]:
    """The rows of every path, counted."""
    for request in requests:
        count, rows = open_path(request, format, task)
        counts.append(count)
        for row in rows:
            count.add(row)
            yield row


def open_path(request: Request, format: str | None, task: str | None) -> tuple[Counts, Iterator[Row]]:
    """How a path is read, and its rows."""
    if task is not None:
        rows = convert_records(task, request.records(), request.problems)
        return Counts(request.path, f"task {task}", left_out=request.left_out), rows
    unused: Sequence[str] = ()
    if format is None:
        format, sample = detect_format(request)
        unused = unused_keys(format, sample)
    found = Counts(request.path, format, unused=unused, left_out=request.left_out)
    return found, (row for _, row in find_format(format).read(request))


def checked(
    rows: Iterator[Row], limit: int | None, problems: Problems, skip_faulty: bool, bar: Bar
) -> Iterator[Row]:
    """The first `limit` rows. Raises UserError after the last one where there were faults, or no row."""
    number = 0
    for row in rows:
        yield row
        number += 1
        bar.advance(1)
        if number == limit:
            break
    if not skip_faulty:
        problems.require()
    if not number:
        problems.require()
        raise UserError("no rows; expected at least one")


def fill(row: Row, instruction: str | None, source: str | None) -> Row:
    """The row with what it lacks."""
    return replace(row, instruction=row.instruction or instruction, source=row.source or source)


def print_counts(out: Path, counts: Sequence[Counts], problems: Problems) -> None:
    """A line for each path, and what was not read or not kept."""
    store = open_rows(out)
    print_table(
        f"{out}: {len(store):,} rows, {store.num_texts:,} texts",
        ["read", "as", "rows", "positives a row", "negatives a row"],
        [[one.path, one.how, one.rows, one.a_row(one.positives), one.a_row(one.negatives)] for one in counts],
    )
    for one in counts:
        for why, number in one.left_out.items():
            print(f"{one.path}: left out: {number:,} {why}")
        if one.unused:
            print(f"{one.path}: not read: {', '.join(one.unused)}")
    if graded := sum(one.graded for one in counts):
        print(
            f"rows with a grade: {graded:,}; cosent learns from it, other terms take each pair for a positive"
        )
    if problems:
        print(f"left out with faults: {problems.count:,}, such as\n  " + "\n  ".join(problems.messages[:5]))
