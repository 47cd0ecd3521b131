"""Estimates as a person reads them: rounded, in units that fit; and as JSON, in seconds and bytes."""

import math
import textwrap
from pathlib import Path
from typing import Any

from embedtrain.config.costs import Range
from embedtrain.config.schema import Run
from embedtrain.pipeline.costs.estimate import Estimate, Line, Sum
from embedtrain.pipeline.identity import sources_of
from embedtrain.pipeline.plan import StagePlan
from embedtrain.show.tables import WIDTH, print_table

COLUMNS = ("stage", "what", "tokens", "time", "memory a device", "disk")
UNKNOWN = "unknown"
SECONDS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
BYTES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
COUNTS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def round_to(value: float, digits: int) -> float:
    """Rounded to so many significant digits."""
    if value <= 0:
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(value)))


def with_unit(value: float, units: tuple[tuple[str, float], ...], digits: int, least: str = "") -> str:
    """A rounded number with the largest unit that leaves at least 1: `3 h`."""
    rounded = round_to(value, digits)
    name, unit = next(((name, unit) for name, unit in units if rounded >= unit), (least, 1.0))
    return f"{round_to(value / unit, digits):,g} {name}".strip()


def time_text(seconds: float | None) -> str:
    """One significant digit: `~3 h`."""
    return UNKNOWN if seconds is None else f"~{with_unit(max(1.0, seconds), SECONDS, 1)}"


def bytes_text(value: float | None) -> str:
    """Two significant digits: `~19 GB`."""
    if value is None:
        return UNKNOWN
    return "0" if value < 1 else f"~{with_unit(max(value, 1e3), BYTES, 2)}"


def memory_text(memory: Range | None) -> str:
    """From what a stage needs to what it takes where there is more: `19 – 64 GB`."""
    if memory is None:
        return UNKNOWN
    low, high = (with_unit(value, BYTES, 2) for value in (memory.low, memory.high))
    if low == high:
        return f"~{low}"
    return f"{low.split()[0] if low.split()[1] == high.split()[1] else low} – {high}"


def count_text(value: float | None) -> str:
    """Two significant digits: `1.3 M`."""
    if value is None:
        return UNKNOWN
    return "" if value < 1 else with_unit(value, COUNTS, 2)


def sum_text(total: Sum, text: str) -> str:
    """A sum that leaves out what is unknown says so."""
    return text if total.is_whole else f"at least {text.lstrip('~')}"


def cells(line: Line) -> list[str]:
    """A line of the table."""
    cost = line.cost
    time = time_text(cost.seconds)
    if line.is_done:
        time = "done" if line.took is None else f"done in {with_unit(max(1.0, line.took), SECONDS, 2)}"
    return [
        line.name,
        cost.what,
        count_text(cost.tokens),
        time,
        memory_text(cost.memory),
        bytes_text(cost.disk),
    ]


def print_costs(estimate: Estimate) -> None:
    """The table of estimates with its total, what it rests on, and what does not fit."""
    rows = [cells(line) for line in estimate.lines]
    left = len(estimate.waiting)
    if left:
        total = [
            "total",
            f"{left} left",
            sum_text(estimate.tokens, count_text(estimate.tokens.value) or "0"),
            sum_text(estimate.seconds, time_text(estimate.seconds.value)),
            sum_text(estimate.memory, bytes_text(estimate.memory.value)),
            sum_text(estimate.disk, bytes_text(estimate.disk.value)),
        ]
        rows.append(total)
    note = f"estimates, within a factor of two: {'; '.join(estimate.assumptions())}"
    print_table("what it will cost", COLUMNS, rows, note=note)
    for fault in estimate.faults():
        print(textwrap.fill(f"! {fault}", WIDTH, subsequent_indent="  "))


def to_json(run: Run, plans: list[StagePlan], estimate: Estimate) -> dict[str, Any]:
    """States and estimates, in seconds, bytes and tokens; null where something is unknown."""
    stages = [
        {
            "name": plan.stage.name,
            "kind": plan.stage.kind,
            "state": plan.state,
            "why": plan.why,
            "reads": [*plan.inputs, *sources_of(run, plan.stage)] or ["base"],
            "folder": str(plan.folder),
            "what": line.cost.what,
            "tokens": whole(line.cost.tokens),
            "seconds": whole(line.cost.seconds),
            "took_seconds": line.took,
            "memory_bytes": whole(line.cost.memory.low if line.cost.memory else None),
            "memory_bytes_at_most": whole(line.cost.memory.high if line.cost.memory else None),
            "disk_bytes": whole(line.cost.disk),
        }
        for plan, line in zip(plans, estimate.lines, strict=True)
    ]
    sums = {
        "tokens": estimate.tokens,
        "seconds": estimate.seconds,
        "memory_bytes": estimate.memory,
        "disk_bytes": estimate.disk,
    }
    return {
        "run": run.name,
        "folder": str(Path(run.folder) / run.name),
        "stages": stages,
        "left": {name: {"value": whole(one.value), "whole": one.is_whole} for name, one in sums.items()},
        "assumptions": estimate.assumptions(),
        "faults": estimate.faults(),
    }


def whole(value: float | None) -> int | None:
    """A whole number, or null."""
    return None if value is None else round(value)
