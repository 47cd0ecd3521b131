"""Measures: exported folders and local test data in, a table and a report out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedtrain import __version__
from embedtrain.artifacts import write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Evaluate, MtebTask, Pair
from embedtrain.dist import current, require_processes, start_processes, stop_processes
from embedtrain.evaluation.differences import difference_tables
from embedtrain.evaluation.groups import TextTable, terminal_tables
from embedtrain.evaluation.inherited import forms_of
from embedtrain.evaluation.installed import require_mteb
from embedtrain.evaluation.kept_tables import kept_text_tables
from embedtrain.evaluation.pairs import pair_sections, pair_tables
from embedtrain.evaluation.report import report_json, report_page
from embedtrain.evaluation.sets import cut, read_tasks, unlike_names
from embedtrain.show.tables import markdown_table, print_table
from embedtrain.stages.context import StageContext
from embedtrain.stages.measuring import Found, Wanted, measure_all
from embedtrain.stages.run_report.drawing import run_page

if TYPE_CHECKING:
    from embedtrain.evaluation.mteb_named import NamedTask

REPORT, TABLE, PAGE = "report.json", "report.md", "report.html"


def run_stage(context: StageContext) -> dict[str, object]:
    """Write report.json and, where asked, report.html and results in mteb's format.

    Processes share the texts; the first one alone writes and tells.
    """
    stage, machine = context.stage, context.machine
    assert isinstance(stage, Evaluate)
    start_processes(machine.device, timeout_seconds=machine.timeout_seconds, folder=context.folder)
    require_processes(machine.num_processes)
    named = named_tasks(stage.mteb, stage.mteb_results)
    held_out, in_domain = read_tasks(stage.data), read_tasks(stage.in_domain_data)
    tasks = cut(unlike_names([*held_out, *in_domain], named), stage.max_tokens_per_model)
    names = [task.name for task in in_domain]
    whole, partly = model_folders(context, stage.models), model_folders(context, stage.intermediate)
    forms = forms_of(stage.truncation, stage.quantisation)
    wanted = Wanted(whole, tasks, stage.bm25, partly, stage.pairs, forms, named, stage.mteb_results)
    found = measure_all(wanted, machine, context.folder)
    rank = current().rank
    stop_processes()
    if rank == 0:
        write_figures(context.folder, found, names)
        if stage.report:
            own = [found.models[name] for name in whole if name in context.inputs]
            task = tasks[0] if tasks else None
            write_atomic(context.folder / PAGE, run_page(context, found, names, own, task))
        show_results(found, names)
    return {"models": [*whole, *partly], "tasks": [task.name for task in (*tasks, *named)]}


def named_tasks(asked: Sequence[MtebTask], mteb_results: bool) -> list[NamedTask]:
    """The tasks of mteb, their data loaded. Raises UserError before any model is opened."""
    if mteb_results:
        require_mteb("results in mteb's format (mteb_results)")
    if not asked:
        return []
    require_mteb(f"mteb task '{asked[0].task}'")
    from embedtrain.evaluation.mteb_named import open_named

    return open_named(asked)


def model_folders(context: StageContext, names: Sequence[str]) -> dict[str, str]:
    """Where each model is: an export stage's folder, or what the name says."""
    return {name: str(context.inputs[name] / "model") if name in context.inputs else name for name in names}


def evaluate_folders(
    models: Sequence[str],
    data: Sequence[str],
    out: Path | None,
    max_tokens: int | None,
    bm25: bool,
    machine: Machine,
    *,
    documents: str | None = None,
    truncation: Sequence[int] = (),
    quantisation: Sequence[str] = (),
    mteb: Sequence[str] = (),
    mteb_results: bool = False,
) -> None:
    """The command `embedtrain evaluate`: measure folders side by side and print the table.

    With `documents`, each model is measured for queries too, documents being encoded by that one.
    """
    if not data and not mteb:
        raise UserError("nothing to measure on; give --data with test data, or --mteb with a task of mteb")
    if mteb_results and out is None:
        raise UserError("--mteb-results: no folder to write them to; give --out too")
    named = named_tasks([MtebTask(task=name) for name in mteb], mteb_results)
    tasks = cut(unlike_names(read_tasks(data), named), max_tokens)
    pairs = [Pair(queries=name, documents=documents) for name in models if documents and name != documents]
    names = {name: name for name in [*models, *([documents] if documents else [])]}
    forms = forms_of(truncation, quantisation)
    wanted = Wanted(names, tasks, bm25, pairs=pairs, forms=forms, named=named, mteb_results=mteb_results)
    found = measure_all(wanted, machine, out)
    if out is not None:
        write_figures(out, found, ())
        write_atomic(out / PAGE, report_page(found.results, sections=pair_sections(found.pairs)))
    show_results(found, ())


def write_figures(folder: Path, found: Found, in_domain: Collection[str]) -> None:
    """report.json for programs, report.md for pages that people write."""
    pairs = [pair.to_json() for pair in found.pairs]
    write_json(folder / REPORT, report_json(found.results, in_domain, embedtrain=__version__, pairs=pairs))
    tables = all_tables(found, in_domain)
    parts = [f"**{t.title}**\n\n{markdown_table(t.columns, t.rows)}\n\n{t.note}\n" for t in tables]
    write_atomic(folder / TABLE, "\n".join(parts))


def all_tables(found: Found, in_domain: Collection[str]) -> list[TextTable]:
    """Of all models and how they differ, then of pairs, then of vectors in fewer dims and bits."""
    tables = [*terminal_tables(found.results, in_domain), *difference_tables(found.results, in_domain)]
    return [*tables, *pair_tables(found.pairs, in_domain), *kept_text_tables(found.results)]


def show_results(found: Found, in_domain: Collection[str]) -> None:
    """The tables of the report, in the terminal."""
    for table in all_tables(found, in_domain):
        print_table(table.title, table.columns, table.rows, note=table.note)
