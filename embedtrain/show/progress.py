"""Progress of a loop on stderr: a bar with its end time on a terminal, plain lines elsewhere."""

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

LINE_EVERY_SECONDS = 10.0
LATEST_FRACTION = 0.5  # of the units done: those the rate is taken over


class Bar(Protocol):
    """What a loop tells of its progress."""

    def advance(self, count: int = 1, /, **figures: float | int | str) -> None:
        """`count` more units are done; `figures` are shown beside them."""


def duration_text(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3:05 min, 2:07 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def figures_text(figures: dict[str, float | int | str]) -> str:
    """`loss 1.234  lr 1e-04`: floats in four digits, the rest as they are."""
    shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in figures.values())
    return "  ".join(f"{name} {value}" for name, value in zip(figures, shown, strict=True))


@dataclass
class Clock:
    """Counts units and foretells the end from the latest half of them, so a slow start is forgotten."""

    total: int | None
    now: Callable[[], float] = time.monotonic
    done: int = 0
    marks: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.marks.append((self.now(), 0))

    def add(self, count: int) -> None:
        """Count units and drop marks older than those the rate is taken over."""
        self.done += count
        self.marks.append((self.now(), self.done))
        while len(self.marks) > 2 and self.marks[1][1] <= self.done * (1 - LATEST_FRACTION):
            self.marks.pop(0)

    @property
    def rate(self) -> float:
        """Units a second; 0 while unknown."""
        (first_time, first), (last_time, last) = self.marks[0], self.marks[-1]
        return (last - first) / (last_time - first_time) if last_time > first_time else 0.0

    def status(self, unit: str) -> str:
        """`12/100 steps, 2.0 steps/s, 44 s left`."""
        units = f"{unit}s" if unit else ""
        parts = [f"{self.done:,}{'' if self.total is None else f'/{self.total:,}'} {units}".rstrip()]
        if self.rate:
            parts.append(f"{self.rate:,.3g} {units}/s".replace(" /s", "/s"))
            if self.total is not None and self.done < self.total:
                parts.append(f"{duration_text((self.total - self.done) / self.rate)} left")
        return ", ".join(parts)


class LineBar:
    """Plain lines for logs: at most one every ten seconds, and one at the end."""

    def __init__(self, title: str, clock: Clock, unit: str, stream: TextIO) -> None:
        self.title, self.clock, self.unit, self.stream = title, clock, unit, stream
        self.started = self.printed = clock.now()
        self.figures: dict[str, float | int | str] = {}

    def advance(self, count: int = 1, /, **figures: float | int | str) -> None:
        """Count, and print a line if the last one is old."""
        self.clock.add(count)
        self.figures.update(figures)
        if self.clock.now() - self.printed >= LINE_EVERY_SECONDS:
            self.printed = self.clock.now()
            self.line(self.clock.status(self.unit))

    def line(self, status: str) -> None:
        """Write one line."""
        print(f"{self.title}: {status}  {figures_text(self.figures)}".rstrip(), file=self.stream, flush=True)

    def close(self) -> None:
        """The last line: what was done in how long."""
        took = duration_text(self.clock.now() - self.started)
        self.line(f"{self.clock.done:,} {self.unit}{'' if self.clock.done == 1 else 's'} in {took}")


class TerminalBar:
    """A live bar, and below it how far it is, what is left, and the latest figures."""

    def __init__(self, title: str, clock: Clock, unit: str) -> None:
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=40))
        self.task = self.bar.add_task(title, total=clock.total)
        self.clock, self.unit = clock, unit
        self.figures: dict[str, float | int | str] = {}
        self.status = Text(no_wrap=True, overflow="ellipsis")

    def advance(self, count: int = 1, /, **figures: float | int | str) -> None:
        """Count and redraw."""
        self.clock.add(count)
        self.figures.update(figures)
        self.status.plain = f"{self.clock.status(self.unit)}  {figures_text(self.figures)}".rstrip()
        self.bar.update(self.task, advance=count)


@contextmanager
def progress(
    title: str, *, total: int | None = None, unit: str = "", stream: TextIO | None = None
) -> Iterator[Bar]:
    """Show the progress of a loop: `with progress("train", total=9, unit="step") as bar: bar.advance(1)`.

    `unit` is singular. A log that is no terminal gets a plain line every ten seconds and one at the end. Of
    several processes only the first speaks.
    """
    out = stream or (sys.stderr if os.environ.get("RANK", "0") == "0" else io.StringIO())
    clock = Clock(total)
    if not out.isatty():
        lines = LineBar(title, clock, unit, out)
        try:
            yield lines
        finally:
            lines.close()
        return
    terminal = TerminalBar(title, clock, unit)
    with Live(Group(terminal.bar, terminal.status), console=Console(file=out), refresh_per_second=5):
        yield terminal
