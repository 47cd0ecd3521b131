"""Where a curve is shown besides curve.jsonl: TensorBoard, Weights & Biases, Trackio. Only known here.

A tracker follows the curve. The first process alone speaks to it; where it fails it is dropped with one line
on stderr, and the training goes on. Keys and offline modes are the tools' own environment variables.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from embedtrain.artifacts import read_json, write_json
from embedtrain.config.distilling import Distil
from embedtrain.config.errors import hide_passwords
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Train
from embedtrain.dist import current
from embedtrain.train.log import Figures, read_curve

ID_FILE, LAST_FILE = "trackers.json", "trackers.last"
CLOSE_SECONDS = 120.0
"""Patience with a tracker that still sends when the training has ended."""


class Tracker(Protocol):
    """What a training tells."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a step; steps come in order, after a resume those that are done again come again."""

    def close(self) -> None:
        """Nothing comes any more."""


class TensorBoard:
    """Event files in the stage's folder; those of steps that are done again are void."""

    def __init__(self, folder: Path, first: int) -> None:
        """Go on after the step `first`."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One scalar a figure, on the disk at once: a kill loses none."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        self.writer.close()


class Once:
    """A tracker that keeps what it was told, so that each step is told once; the last is in `LAST_FILE`."""

    def __init__(self, run: Any, folder: Path, name: str) -> None:
        """`run` is the tool's own, with `log` and `finish`."""
        self.run, self.file = run, folder / f"{LAST_FILE}.{name}"
        self.last = int(self.file.read_text() or 0) if self.file.exists() else 0

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """A step that is new."""
        if step > self.last:
            self.run.log(dict(figures), step=step)
            self.last = step
            self.file.write_text(f"{step}\n")

    def close(self) -> None:
        """Send the rest."""
        with redirect_stdout(sys.stderr):
            self.run.finish()


def open_wandb(stage: Train | Distil, machine: Machine, folder: Path, name: str) -> Once:
    """A Weights & Biases run, its files in the stage's folder."""
    import wandb

    # git's address may hold a token; the terminal is the user's own
    quiet = {"console": "off", "silent": True, "disable_git": True, "save_code": False, "login_timeout": 30}
    run = wandb.init(
        project=machine.tracker_project,
        name=name,
        group=folder.parent.name,
        id=stable_id(folder),
        resume="allow",
        dir=str(folder),
        config=stage.model_dump(mode="json"),
        settings=wandb.Settings(**quiet),
    )
    return Once(run, folder, "wandb")


def open_trackio(stage: Train | Distil, machine: Machine, folder: Path, name: str) -> Once:
    """A Trackio run, kept where `TRACKIO_DIR` says."""
    import trackio

    with redirect_stdout(sys.stderr):  # what it says of its dashboard
        run = trackio.init(
            project=machine.tracker_project,
            name=f"{name} {stable_id(folder)}",
            group=folder.parent.name,
            resume="allow",
            config=stage.model_dump(mode="json"),
            embed=False,
        )
    return Once(run, folder, "trackio")


def stable_id(folder: Path) -> str:
    """The id of this stage's work, the same after a resume, and another once the folder was thrown away."""
    file = folder / ID_FILE
    if not file.exists():
        write_json(file, {"id": uuid4().hex[:12]})
    return str(read_json(file)["id"])


class Trackers:
    """Those that are open, by name."""

    def __init__(self) -> None:
        """None yet."""
        self.open: dict[str, Tracker] = {}
        self.tokens: dict[str, float] = {}

    def add(self, name: str, opening: Callable[[], Tracker]) -> None:
        """Open one more."""
        with dropped_where_it_fails(self.open, name):
            self.open[name] = opening()

    def log(self, figures: Figures) -> None:
        """Tell a line of the curve: its numbers, and the share of each source in the tokens so far."""
        if not self.open:
            return
        self.count(figures)
        numbers = {name: float(value) for name, value in figures.items() if not isinstance(value, str)}
        total = sum(self.tokens.values())
        numbers |= {f"share/{source}": tokens / total for source, tokens in self.tokens.items() if total}
        step = int(numbers.pop("step"))
        for name, tracker in list(self.open.items()):
            with dropped_where_it_fails(self.open, name):
                tracker.log(step, numbers)

    def count(self, figures: Figures) -> None:
        """Add a line's tokens to its source, or to its sources by their rows."""
        rows = {name.partition("/")[2]: float(n) for name, n in figures.items() if name.startswith("rows/")}
        parts = rows or ({str(figures["source"]): 1.0} if "source" in figures else {})
        for source, part in parts.items():
            tokens = float(figures["tokens"]) * part / sum(parts.values())
            self.tokens[source] = self.tokens.get(source, 0.0) + tokens

    def close(self) -> None:
        """Let each send the rest, but not for ever: a network may be gone."""
        for name, tracker in list(self.open.items()):
            with dropped_where_it_fails(self.open, name):
                finish(tracker.close, name)


def finish(close: Callable[[], None], name: str, seconds: float = CLOSE_SECONDS) -> None:
    """Call `close` and raise what it raises; TimeoutError where it takes longer."""
    raised: list[Exception] = []

    def work() -> None:
        try:
            close()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work, name=f"closing {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"it was still sending after {seconds:g} s")
    if raised:
        raise raised[0]


@contextmanager
def dropped_where_it_fails(opened: dict[str, Tracker], name: str) -> Iterator[None]:
    """Whatever a tracker raises, take it out with one line on stderr."""
    try:
        yield
    except Exception as error:
        opened.pop(name, None)
        lines = hide_passwords(str(error)).strip().splitlines() or [""]
        print(
            f"tracker {name}: dropped, {type(error).__name__}: {lines[0]}; the training goes on, and "
            "curve.jsonl has every step",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def tracking(stage: Train | Distil, machine: Machine, folder: Path, first: int) -> Iterator[Trackers]:
    """The machine's trackers for a training that goes on after the step `first`; none on other processes."""
    trackers = Trackers()
    if current().rank == 0 and machine.trackers:
        name = f"{folder.parent.name} {stage.name}"
        openings: dict[str, Callable[[], Tracker]] = {
            "tensorboard": lambda: TensorBoard(folder, first),
            "wandb": lambda: open_wandb(stage, machine, folder, name),
            "trackio": lambda: open_trackio(stage, machine, folder, name),
        }
        for figures in read_curve(folder / "curve.jsonl"):
            trackers.count(figures)
        for kind in machine.trackers:
            trackers.add(kind, openings[kind])
    try:
        yield trackers
    finally:
        trackers.close()
