"""How a loop is asked to stop: by a signal to this process, or by the file that `embedtrain run` leaves.

Either way it stops after its current step, with a checkpoint. A second signal ends the process at once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from embedtrain.dist import current
from embedtrain.stops import STOP, STOPPABLE, Stopped, hearing


@dataclass(frozen=True)
class Asked:
    """Whether this process was asked to stop the work on a stage's folder."""

    folder: Path
    by_signal: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> bool:
        """The first process looks for the file too: the loop brings all processes to one answer."""
        return self.by_signal.is_set() or (current().rank == 0 and self.by_run())

    def by_run(self) -> bool:
        """Whether `embedtrain run` asks."""
        return (self.folder / STOP).exists()

    def stop(self, step: int, steps: int) -> None:
        """End this process, once all have saved: quietly where `embedtrain run` asked, which tells of it."""
        if self.by_run() or current().rank > 0:
            raise SystemExit(0 if self.by_run() else Stopped.code)
        raise Stopped(f"stopped at step {step} of {steps}; run the same command to resume")

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal."""
        if self.by_signal.is_set():
            raise KeyboardInterrupt
        self.by_signal.set()


@contextmanager
def interruptible(folder: Path) -> Iterator[Asked]:
    """From here on the work on the folder stops where it is asked to, and says so by a file in there."""
    asked, leads = Asked(folder), current().rank == 0
    with hearing(asked.hear):
        if leads:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STOPPABLE).touch()
        try:
            yield asked
        finally:
            if leads:
                (folder / STOPPABLE).unlink(missing_ok=True)
