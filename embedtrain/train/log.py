"""curve.jsonl: one line a step, floats at full precision."""

import json
from pathlib import Path

from embedtrain.artifacts import write_atomic

Figures = dict[str, float | int | str]
TIMES = ("seconds", "tokens_per_second")


def append_curve(path: Path, figures: Figures) -> None:
    """Add a step."""
    with path.open("a") as file:
        file.write(json.dumps(figures) + "\n")


def read_curve(path: Path) -> list[Figures]:
    """The steps written so far; a last line cut short by a kill is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def cut_curve(path: Path, last_step: int) -> None:
    """Drop what was written after `last_step`, which is about to be done again."""
    kept = [figures for figures in read_curve(path) if int(figures["step"]) <= last_step]
    write_atomic(path, "".join(json.dumps(figures) + "\n" for figures in kept))
