"""The command: prepare, fill the table cell by cell, write it after every seed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from embedtrain.ablation.cells import Kept
from embedtrain.ablation.making import Ask, Start, make_cells
from embedtrain.ablation.report import show, write_all
from embedtrain.ablation.setup import Setup
from embedtrain.ablation.verdicts import Family, families, seen
from embedtrain.config.schema import Machine
from embedtrain.evaluation.sets import cut, read_tasks, unlike_names
from embedtrain.evaluation.tasks import Task
from embedtrain.pipeline import lock, work
from embedtrain.pipeline.running import probe
from embedtrain.show.tables import print_table


def ablate(
    setup: Setup,
    machine: Machine,
    out: Path | None,
    *,
    keep_models: bool,
    start: Start = work,
    ask: Ask = probe,
) -> Path:
    """Fill the table and write it; returns the folder that it was written to.

    It is written after each seed, over the seeds done so far: a table that was stopped goes on. `start` does
    the work of one stage, `ask` looks at what needs torch before the first.
    """
    tasks, folder = read_test_data(setup), out or setup.tables
    kept = Kept(setup.root / "cells", tasks)
    with lock(setup.root, setup.asked.ablation.run):
        ready = {seed for seed in setup.seeds if all(map(kept.has, setup.identities(seed)))}
        done: list[int] = []
        for seed in make_cells(setup, kept, machine, keep_models=keep_models, start=start, ask=ask):
            done.append(seed)
            if seed not in ready or len(done) == len(setup.seeds):
                tables = write_table(folder, setup, done, kept, tasks)
    show(setup, tables)
    return folder


def read_test_data(setup: Setup) -> list[Task]:
    """The tasks that are measured."""
    return cut(unlike_names(read_tasks(setup.data)), setup.max_tokens)


def write_table(
    folder: Path, setup: Setup, seeds: Sequence[int], kept: Kept, tasks: Sequence[Task]
) -> list[Family]:
    """The table over these seeds, written as files."""
    results = {
        name: [kept.results(setup.found[name, seed].identity) for seed in seeds] for name in setup.names
    }
    measured = seen(results)
    tables = families(measured, {task.name: task.kind for task in tasks})
    write_all(folder, setup, seeds, tasks, measured, tables)
    return tables


def show_plan(setup: Setup) -> None:
    """What would be done, and what is done: a row a variant."""
    kept = Kept(setup.root / "cells", read_test_data(setup))
    rows: list[list[object]] = []
    known: set[Path] = set()
    for variant in setup.variants:
        cells = [setup.found[variant.name, seed] for seed in setup.seeds]
        own = {plan.folder: plan.stage for cell in cells for plan in cell.planned if plan.folder not in known}
        known |= own.keys()
        trained = Counter(stage.name for stage in own.values() if stage.kind in ("train", "distil"))
        names = ", ".join(f"{name} x {times}" for name, times in sorted(trained.items()))
        done = sum(kept.has(cell.identity) for cell in cells)
        rows.append([variant.name, names or "nothing", len(own) - trained.total(), f"{done} of {len(cells)}"])
    seeds = ", ".join(map(str, setup.seeds))
    print_table(
        f"{setup.run.name}: {len(setup.variants)} variants, seeds {seeds}, measured on '{setup.model}'",
        ["variant", "trains", "other stages", "measured"],
        rows,
        note=f"A row counts only stages that no row above it has. Folder {setup.root}",
    )
