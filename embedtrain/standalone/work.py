"""A file in, stages of a run made in memory, a file out; what was finished is kept until all is done."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedtrain.config.check import check_run
from embedtrain.config.errors import ConfigError, UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.data.counts import count_rows
from embedtrain.data.formats.flagembedding import write_lines
from embedtrain.data.formats.request import Request
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows, write_store
from embedtrain.data.store.view import RowStore
from embedtrain.pipeline import lock, plan_run, work
from embedtrain.show.progress import progress
from embedtrain.stages.convert import Counts, checked, read_all
from embedtrain.standalone.options import Section
from embedtrain.templates import validate_template

SOURCE, RUN = "rows", "stages"
ENDINGS = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class Given:
    """The files to read, how, and the file to write."""

    command: str
    paths: Sequence[str]
    out: Path
    format: str | None
    columns: Mapping[str, str] | None
    seed: int
    machine: Machine

    @property
    def folder(self) -> Path:
        """Where the work stands until it is done, beside the file to write."""
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def rows(self) -> Path:
        """The rows that were read, as a folder of canonical ones."""
        return self.folder / SOURCE

    @property
    def stem(self) -> str:
        """The name of the file to write without its endings."""
        return self.out.name.removesuffix(".gz").removesuffix(".jsonl")


@contextmanager
def opened(given: Given) -> Iterator[RowStore]:
    """The rows of the files; the work folder is locked, and removed once all went well.

    The same rows are written again where a killed command is given again: equal rows, equal bytes, so that
    the stages find what they finished.
    """
    if not given.out.name.endswith(ENDINGS):
        raise UserError(f"--out {given.out}: expected a name that ends in {' or '.join(ENDINGS)}")
    if given.out.exists():
        raise UserError(f"{given.out}: is there already; remove it or give another name")
    with lock(given.folder, given.command):
        try:
            shutil.rmtree(given.rows, ignore_errors=True)
            read_files(given)
            yield open_rows(given.rows)
        except UserError:
            if not (given.folder / RUN).exists():
                shutil.rmtree(given.folder)  # nothing to go on from
            raise
        shutil.rmtree(given.folder)


def read_files(given: Given) -> None:
    """Write the rows of all files. Raises UserError with all faults found."""
    problems, counts = Problems(), list[Counts]()
    requests = [Request(path, problems, columns=given.columns or None) for path in given.paths]
    with progress("read", unit="row") as bar:
        rows = read_all(requests, counts, given.format, None)
        write_store(given.rows, checked(rows, None, problems, skip_faulty=False, bar=bar))
    for one in counts:
        if one.unused:
            print(f"{one.path}: not kept: {', '.join(one.unused)}")


def do_stages(given: Given, stages: Sequence[Section]) -> dict[str, Path]:
    """Do what is left to do of the stages, each in its own process; their folders by name."""
    run = Run.model_validate(
        {
            "name": RUN,
            "folder": str(given.folder),
            "seed": given.seed,
            "base": {"model": "none"},  # no stage here reads it
            "sources": {SOURCE: {"rows": str(given.rows)}},
            "stages": stages,
        }
    )
    wrong = check_run(run, given.command, count_rows=count_rows, validate_template=validate_template)
    if wrong:
        raise ConfigError(wrong)
    plans = plan_run(run)
    for plan in plans:
        if plan.state != "done":
            print(f"\n▶ {plan.stage.kind}", flush=True)
            work(plan, run, given.machine)
    return {plan.stage.name: plan.folder for plan in plans}


def write_file(given: Given, rows: Iterable[Row]) -> None:
    """Write the file and say what is in it."""
    counts = {"rows": 0, "negatives": 0, "none": 0}
    with progress("write", unit="row") as bar:
        write_lines(given.out, counted(rows, counts, bar.advance))
    print(f"{given.out}: {counts['rows']:,} rows, {counts['negatives'] / counts['rows']:.1f} negatives a row")
    if counts["none"]:
        print(f"{counts['none']:,} rows have no negative; trainers other than this one may stop at them")


def counted(rows: Iterable[Row], counts: dict[str, int], tell: Callable[[int], None]) -> Iterator[Row]:
    """The rows, counted as they pass."""
    for row in rows:
        counts["rows"] += 1
        counts["negatives"] += len(row.negatives)
        counts["none"] += not row.negatives
        tell(1)
        yield row
