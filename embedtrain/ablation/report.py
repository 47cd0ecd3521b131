"""What an ablation leaves behind: ablation.json for programs; a table, a plot and a page for people."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embedtrain import __version__
from embedtrain.ablation.setup import CONTROL, FULL, Setup
from embedtrain.ablation.variants import cut_run
from embedtrain.ablation.verdicts import Family, Measured
from embedtrain.artifacts import write_atomic, write_json
from embedtrain.config.load import resolved
from embedtrain.evaluation.tasks import Task
from embedtrain.show.forest import Effect, forest_plot
from embedtrain.show.page import Block, Grid, Plot, Prose, Section, render_page
from embedtrain.show.tables import markdown_table, print_table

FORMAT = 1
DECIMALS = 4
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft")
COLUMNS = ["variant", "mean", "difference", "verdict", "over seeds", "over seeds and tests", "detectable"]
SIGNS = {"better": 1, "worse": -1}
HOW = (
    "Points of 100, a variant less the full recipe with the same seed, mean over tasks. Intervals are 95 %: "
    "over seeds by a paired t, over seeds and tests by a bootstrap that draws seeds and test items. A "
    "variant is better or worse only where neither interval holds zero."
)


def write_all(
    out: Path, setup: Setup, seeds: Sequence[int], tasks: Sequence[Task], measured: Measured,
    tables: Sequence[Family],
) -> None:  # fmt: skip
    """ablation.json, .md, .svg and .html in the folder `out`."""
    write_json(out / "ablation.json", to_json(setup, seeds, tasks, measured, tables))
    write_atomic(out / "ablation.md", markdown(setup, tables))
    write_atomic(out / "ablation.svg", plot(tables[0]))
    write_atomic(out / "ablation.html", page(setup, seeds, tasks, tables))


def show(setup: Setup, tables: Sequence[Family]) -> None:
    """The tables in the terminal."""
    for table in tables:
        note = "\n".join(table.says(control_text(setup)))
        print_table(heading(table), COLUMNS, rows(table), note=note)


def heading(table: Family) -> str:
    """`All tasks (debian, faq), 5 seeds`."""
    seeds = "1 seed" if table.num_seeds == 1 else f"{table.num_seeds} seeds"
    return f"{table.title[0].upper()}{table.title[1:]} ({', '.join(table.tasks)}), {seeds}"


def rows(table: Family) -> list[list[object]]:
    """The full recipe, then every variant, the control last."""
    told: list[list[object]] = [[FULL, table.means[FULL], *[None] * (len(COLUMNS) - 2)]]
    for name, one in table.differences.items():
        told.append(
            [
                name,
                table.means[name],
                f"{one.mean:+.2f}",
                table.verdict(name),
                interval(one.over_seeds),
                interval(one.over_both),
                one.detectable,
            ]
        )
    return told


def interval(bounds: tuple[float, float] | None) -> str | None:
    """`[-0.40, +1.20]`."""
    return None if bounds is None else f"[{bounds[0]:+.2f}, {bounds[1]:+.2f}]"


def control_text(setup: Setup) -> str:
    """The changes of the planted control."""
    return " ".join(setup.asked.ablation.control)


# --- for programs -------------------------------------------------------------------------------------------


def to_json(
    setup: Setup, seeds: Sequence[int], tasks: Sequence[Task], measured: Measured, tables: Sequence[Family]
) -> dict[str, Any]:
    """All figures, and what they were measured of and with; no time, so that the same cells give the same."""
    recipe = resolved(cut_run(setup.run, setup.model, setup.run.folder))
    return {
        "format": FORMAT,
        "made_with": made_with(),
        "run": {key: value for key, value in recipe.items() if key not in ("name", "folder")},
        "model": setup.model,
        "seeds": list(seeds),
        "seeded": setup.asked.ablation.seeded,
        "max_tokens": setup.max_tokens,
        "tasks": {
            task.name: {"kind": task.kind, "metric": task.primary, "sizes": task.sizes, "of": task.full_sizes}
            for task in tasks
        },
        "variants": {
            one.name: {"changes": one.changes, "overrides": one.overrides} for one in setup.variants[1:]
        },
        "values": {
            name: {task: rounded(seen.values_S.tolist()) for task, seen in of_tasks.items()}
            for name, of_tasks in measured.items()
        },
        "tables": [table_json(table) for table in tables],
    }


def made_with() -> dict[str, Any]:
    """Versions and the machine."""
    versions = {"embedtrain": __version__} | {name: version(name) for name in PACKAGES}
    machine = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}
    return {"versions": versions, "machine": machine, "python": platform.python_version()}


def table_json(table: Family) -> dict[str, Any]:
    """One table; `detectable` is the middle of its rows."""
    differences = {
        name: {
            "mean": round(table.means[name], DECIMALS),
            "difference": round(one.mean, DECIMALS),
            "by_seed": rounded(one.by_seed),
            "over_seeds": None if one.over_seeds is None else rounded(one.over_seeds),
            "over_seeds_and_tests": rounded(one.over_both),
            "p": None if one.p is None else round(one.p, DECIMALS),
            "detectable": None if one.detectable is None else round(one.detectable, DECIMALS),
            "verdict": table.verdict(name),
        }
        for name, one in table.differences.items()
    }
    return {
        "title": table.title,
        "tasks": list(table.tasks),
        "full_recipe": round(table.means[FULL], DECIMALS),
        "differences": differences,
        "detectable": round(table.detectable[1], DECIMALS) if table.detectable else None,
        "has_power": table.has_power,
    }


def rounded(values: Sequence[float]) -> list[float]:
    """The values as files hold them."""
    return [round(float(value), DECIMALS) for value in values]


# --- for people ---------------------------------------------------------------------------------------------


def markdown(setup: Setup, tables: Sequence[Family]) -> str:
    """The tables, what each can tell, and what each variant changes."""
    parts = []
    for table in tables:
        says = "".join(f"- {line}\n" for line in table.says(control_text(setup)))
        parts.append(f"**{heading(table)}**\n\n{markdown_table(COLUMNS, rows(table))}\n{says}")
    changes = markdown_table(["variant", "changes"], change_rows(setup))
    return "\n".join(["![](ablation.svg)\n", *parts, f"{HOW}\n", changes])


def change_rows(setup: Setup) -> list[list[object]]:
    """What each variant changes, as it was asked for."""
    return [[one.name, " ".join(one.changes)] for one in setup.variants[1:]]


def plot(table: Family) -> str:
    """The differences of a table around zero, the control left out: its effect would set the scale."""
    effects = [
        Effect(name, one.mean, one.over_both, one.over_seeds, SIGNS.get(table.verdict(name), 0))
        for name, one in table.differences.items()
        if name != CONTROL
    ]
    return forest_plot(effects, f"{heading(table)}: differences", "points from the full recipe")


def page(setup: Setup, seeds: Sequence[int], tasks: Sequence[Task], tables: Sequence[Family]) -> str:
    """The plot and the table of each family, what was changed, and how it was measured."""
    sections = [Section(heading(table), blocks(setup, table)) for table in tables]
    caption = "Each is the full recipe but for this."
    sections.append(Section("What was changed", [Grid(["variant", "changes"], change_rows(setup), caption)]))
    measured = [[task.name, task.kind, task.primary, size_text(task)] for task in tasks]
    grid = Grid(["task", "kind", "metric", "size"], measured)
    sections.append(Section("How it was measured", [Prose(HOW), grid]))
    facts = [("variants", len(setup.variants) - 2), ("seeds", len(seeds)), ("tasks", len(tasks))]
    lead = f"What each change to {setup.run.name} is worth, measured on its export '{setup.model}'."
    return render_page(f"Ablation of {setup.run.name}", sections, lead=lead, facts=facts)


def size_text(task: Task) -> str:
    """`225 queries, 1,400 documents`."""
    return ", ".join(f"{num:,} {name}" for name, num in task.sizes.items())


def blocks(setup: Setup, table: Family) -> list[Block]:
    """One family's plot, table and sentences."""
    caption = (
        "Dots: mean difference from the full recipe. Thin lines: 95 % over seeds and tests; thick ones: over "
        "seeds. Green is better, orange worse, grey within noise or untold. The control is in the table only."
    )
    grid = Grid(COLUMNS, rows(table), strong_rows=frozenset([0]))
    told: list[Block] = [Prose(line) for line in table.says(control_text(setup))]
    return [Plot(plot(table), caption), grid, *told]
