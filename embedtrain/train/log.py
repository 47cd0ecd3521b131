"""curve.jsonl: one line a step, floats at full precision."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import disk_full_is_an_error
from embedtrain.dist import current

Figures = dict[str, float | int | str]
CURVE = "curve.jsonl"
OF_MACHINE = (
    "seconds",
    "tokens_per_second",
    "feed_seconds",
    "warm_up_seconds",
    "kept_tokens",
    "samples_per_second",
    "peak_memory_bytes",
    "mfu",
)
"""What the machine decides and no result depends on."""


def append_curve(path: Path, figures: Mapping[str, object]) -> None:
    """Add a step."""
    line = json.dumps(figures) + "\n"
    with disk_full_is_an_error(path, len(line)), path.open("a") as file:
        file.write(line)


def read_curve(path: Path) -> list[Figures]:
    """The steps written so far; a last line cut short by a kill is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def cut_curve(path: Path, last_step: int) -> None:
    """Drop what was written after `last_step`, which is about to be done again."""
    kept = [figures for figures in read_curve(path) if int(figures["step"]) <= last_step]
    write_atomic(path, "".join(json.dumps(figures) + "\n" for figures in kept))


def warm_up(figures: Figures) -> Figures:
    """What a first step adds to its line where layers are compiled; the first process tells it."""
    seconds = figures["seconds"]
    if current().rank == 0:
        print(f"compiled layers: {seconds} s of warm-up in step {figures['step']}", file=sys.stderr)
    return {"warm_up_seconds": seconds}


def speed(curve: Sequence[Figures]) -> dict[str, float]:
    """Seconds of all steps, those of them that waited for batches, and tokens a second without warm-up."""
    steady = [figures for figures in curve if "warm_up_seconds" not in figures]
    tokens, seconds = (sum(float(f[name]) for f in steady) for name in ("tokens", "seconds"))
    return {
        "step_seconds": round(sum(float(f["seconds"]) for f in curve), 1),
        "feed_seconds": round(sum(float(f.get("feed_seconds", 0)) for f in curve), 2),
        "warm_up_seconds": round(sum(float(f.get("warm_up_seconds", 0)) for f in curve), 1),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
    }
