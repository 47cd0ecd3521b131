"""Trains and measures what is missing, cell by cell; whatever stops it, the same command goes on."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from embedtrain.ablation.cells import Kept
from embedtrain.ablation.setup import Cell, Setup
from embedtrain.config.schema import Machine, Run
from embedtrain.pipeline import StagePlan, plan_run
from embedtrain.show.progress import Clock, duration_text, progress

WHOLE_WEIGHTS = ("export", "soup")
"""Kinds of stages whose folders hold a whole model, which nothing needs once it is measured."""

Start = Callable[[StagePlan, Run, Machine], None]
"""Does the work of one stage and puts its folder in place."""
Ask = Callable[[Run, Path], None]
"""Asks what only torch can tell of a run; the folder is for its question."""


def make_cells(
    setup: Setup, kept: Kept, machine: Machine, *, keep_models: bool, start: Start, ask: Ask
) -> Iterator[int]:
    """Make and measure every cell that is missing; gives each seed once all its cells are there."""
    missing = [cell for cell in setup.cells if not kept.has(cell.identity)]
    ask_torch(setup, kept, missing, ask)
    clock, total = Clock(len(missing)), len(setup.cells)
    for number, cell in enumerate(setup.cells, start=1):
        if not kept.has(cell.identity):
            print(f"\n▶ cell {number} of {total}: {cell.variant}, seed {cell.seed}{left(clock)}", flush=True)
            make_cell(cell, kept, machine, start)
            clock.add(1)
        if not keep_models:
            remove_models(setup.cells, kept)
        if number == total or setup.cells[number].seed != cell.seed:
            yield cell.seed


def ask_torch(setup: Setup, kept: Kept, missing: Iterable[Cell], ask: Ask) -> None:
    """Ask what only torch can tell of each variant that has no measured cell, before the first starts."""
    known = {cell.variant for cell in setup.cells if kept.has(cell.identity)}
    new = {cell.variant: cell.run for cell in reversed(list(missing)) if cell.variant not in known}
    if not new:
        return
    with progress("look at variants", total=len(new), unit="variant") as bar:
        for name in reversed(new):
            ask(new[name], setup.root)
            bar.advance(1, variant=name)


def left(clock: Clock) -> str:
    """`; about 31:05 min left`, once a cell is done."""
    if not clock.rate or clock.total is None:
        return ""
    return f"; about {duration_text((clock.total - clock.done) / clock.rate)} left"


def make_cell(cell: Cell, kept: Kept, machine: Machine, start: Start) -> None:
    """Do the stages that are left to do and measure the model."""
    plans = plan_run(cell.run)
    for plan in plans:
        if plan.state != "done":
            print(f"  {plan.stage.name} ({plan.stage.kind})", flush=True)
            start(plan, cell.run, machine)
    kept.measure(cell.identity, plans[-1].folder / "model", machine)


def remove_models(cells: Iterable[Cell], kept: Kept) -> None:
    """Remove exports and soups that no cell still to come reads; adapters and data stay."""
    needed: set[Path] = set()
    unneeded: set[Path] = set()
    for cell in cells:
        folders = {plan.folder for plan in cell.planned if plan.stage.kind in WHOLE_WEIGHTS}
        (unneeded if kept.has(cell.identity) else needed).update(folders)
    for folder in sorted(unneeded - needed):
        shutil.rmtree(folder, ignore_errors=True)
