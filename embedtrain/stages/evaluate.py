"""Measures: exported folders and local test data in, a table and a report out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from embedtrain import __version__
from embedtrain.artifacts import hash_folder, hash_json, write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Evaluate
from embedtrain.evaluation.groups import terminal_tables
from embedtrain.evaluation.measure import Remembering, bm25_result, measure
from embedtrain.evaluation.neighbours import embedding_map, nearest_examples
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.report import FORMAT, read_curve, report_json, report_page
from embedtrain.evaluation.results import Result, keep_result
from embedtrain.evaluation.tasks import Retrieval, Task, cut_tasks
from embedtrain.model.st import Embedder, find_folder, open_sentence_transformer
from embedtrain.show.plots import Points
from embedtrain.show.progress import progress
from embedtrain.show.tables import markdown_table, print_table
from embedtrain.stages.context import StageContext

REPORT, TABLE, PAGE, CURVE, CELLS = "report.json", "report.md", "report.html", "curve.jsonl", "cells"
DIAGNOSED = {
    "accuracy@1": "diagnostics/accuracy_at_1",
    "hardest negative": "diagnostics/hardest_negative_cosine",
}
BYTES_PER_TOKEN = 4  # of English, roughly: the same cut for every model, whatever its tokenizer


def run_stage(context: StageContext) -> dict[str, object]:
    """Write report.json and, where asked, report.html."""
    stage = context.stage
    assert isinstance(stage, Evaluate)
    held_out, in_domain = read_tasks(stage.data), read_tasks(stage.in_domain_data)
    tasks = unlike_names([*held_out, *in_domain])
    if stage.max_tokens_per_model is not None:
        tasks = cut_tasks(tasks, stage.max_tokens_per_model, count_tokens)
    names = [task.name for task in in_domain]
    whole, partly = model_folders(context, stage.models), model_folders(context, stage.intermediate)
    results, opened = measure_all(whole, tasks, stage.bm25, context.machine, partly, context.folder)
    write_figures(context.folder, results, names)
    if stage.report:
        page = run_page(context, results, names, [opened[n] for n in whole if n in context.inputs], tasks[0])
        write_atomic(context.folder / PAGE, page)
    show_results(results, names)
    return {"models": [*whole, *partly], "tasks": [task.name for task in tasks]}


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
) -> None:
    """The command `embedtrain evaluate`: measure folders side by side and print the table."""
    tasks = unlike_names(read_tasks(data))
    if max_tokens is not None:
        tasks = cut_tasks(tasks, max_tokens, count_tokens)
    results, _ = measure_all({name: name for name in models}, tasks, bm25, machine, {}, out)
    if out is not None:
        write_figures(out, results, ())
        write_atomic(out / PAGE, report_page(results))
    show_results(results, ())


def read_tasks(paths: Sequence[str]) -> list[Task]:
    """The tasks in all paths."""
    return [task for path in paths for task in find_tasks(path)]


def unlike_names(tasks: Sequence[Task]) -> list[Task]:
    """The tasks; raises UserError where two have one name, which would mix their columns."""
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two test sets are named '{name}'; rename one of their folders or files")
    return list(tasks)


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Roughly the tokens of each text."""
    return [len(text.encode()) // BYTES_PER_TOKEN + 1 for text in texts]


def measure_all(
    models: Mapping[str, str],
    tasks: Sequence[Task],
    bm25: bool,
    machine: Machine,
    partly: Mapping[str, str],
    folder: Path | None,
) -> tuple[list[Result], dict[str, Remembering]]:
    """Results in the order of a table, and the models; those in `partly` see the first task alone.

    Finished cells are kept in `folder`: a table that was stopped goes on from there.
    """
    if machine.threads:
        torch.set_num_threads(machine.threads)
    results = [bm25_result(task) for task in tasks if bm25 and isinstance(task, Retrieval)]
    opened: dict[str, Remembering] = {}
    total = len(models) * len(tasks) + len(partly)
    with progress("evaluate", total=total, unit="task") as bar:
        for name, path in {**models, **partly}.items():
            opened[name] = embedder = Remembering(name, partial(open_model, name, path, machine.device))
            weights = hash_folder(find_folder(path)) if folder else ""
            for task in tasks if name in models else tasks[:1]:
                file = folder / CELLS / cell_name(name, weights, task) if folder else None
                results.append(keep_result(file, partial(measure, embedder, task)))
                bar.advance(1, model=name, task=task.name)
    return results, opened


def open_model(name: str, path: str, device: str) -> Embedder:
    """The model as a server would load it."""
    return open_sentence_transformer(path, device=device, name=name)


def cell_name(model: str, weights: str, task: Task) -> str:
    """The file of one cell of a table: another model, task, version or format of results has another."""
    identity = hash_json([__version__, FORMAT, model, weights, task.kind, asdict(task)])
    return f"{task.name}-{identity[:16]}.json"


def write_figures(folder: Path, results: Sequence[Result], in_domain: Collection[str]) -> None:
    """report.json for programs, report.md for pages that people write."""
    write_json(folder / REPORT, report_json(results, in_domain, embedtrain=__version__))
    tables = terminal_tables(results, in_domain)
    parts = [f"**{t.title}**\n\n{markdown_table(t.columns, t.rows)}\n\n{t.note}\n" for t in tables]
    write_atomic(folder / TABLE, "\n".join(parts))


def run_page(
    context: StageContext,
    results: Sequence[Result],
    in_domain: Collection[str],
    own: Sequence[Remembering],
    task: Task,
) -> str:
    """The page of a run: tables and curves; neighbours and maps of its first and last model on one task."""
    run = context.run
    pair = [own[0], own[-1]] if len(own) > 1 else []
    layers = f"its first {run.base.keep_first_layers} layers" if run.base.keep_first_layers else "all layers"
    return report_page(
        results,
        in_domain,
        curves=read_curves(context, "loss"),
        diagnosed={
            f"{name}, {stage}": points
            for name, figure in DIAGNOSED.items()
            for stage, points in read_curves(context, figure).items()
        },
        examples=nearest_examples(pair[0], pair[1], task) if pair else [],
        maps=[embedding_map(model, task) for model in pair],
        title=f"embedtrain: {run.name}",
        lead=f"{run.base.model}, {layers}: before training, after it, and beside other models.",
        facts=[("stages", len(run.stages)), ("seed", run.seed), ("precision", run.precision)],
    )


def read_curves(context: StageContext, figure: str) -> dict[str, Points]:
    """The figure's curves of the run's train stages that have it, from the newest folder of each."""
    curves: dict[str, Points] = {}
    for stage in context.run.stages:
        found = list(context.folder.parent.glob(f"{stage.name}-????????/{CURVE}"))
        if found and stage.kind == "train":
            points = read_curve(max(found, key=lambda path: path.stat().st_mtime), figure)
            curves |= {stage.name: points} if points[0] else {}
    return curves


def show_results(results: Sequence[Result], in_domain: Collection[str]) -> None:
    """The tables of the report, in the terminal."""
    for table in terminal_tables(results, in_domain):
        print_table(table.title, table.columns, table.rows, note=table.note)
