"""How a run is stopped by a signal.

`embedtrain run` alone hears it. A training, of however many processes, is asked to save and end; any other
work is killed, for each stage goes on from what it has written. Launchers of several processes hear nothing:
they would end their processes after half a minute, with a traceback.
"""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from embedtrain.places import Failure, first_failure
from embedtrain.stops import RESUME_CODE, SIGNALS, STOP, STOPPABLE, Stopped, as_its_starter, hearing, lives

POLL_SECONDS = 0.25
GRACE_SECONDS = 10.0
"""What processes may take to end: by themselves where one of the stage has failed, and once killed."""


def stop_between(number: int, frame: FrameType | None) -> None:
    """What a signal does while no stage is at work."""
    raise Stopped("stopped; the same command goes on from where it was")


@dataclass
class Work:
    """The process that works on a stage's folder, and what a signal does to it.

    `before` is what an earlier launch has left, where the first node has not removed it yet.
    """

    folder: Path
    child: subprocess.Popen[bytes]
    before: tuple[int, Failure | None]
    asked: bool = False

    def wait(self) -> int:
        """The exit code; where the stage cannot go on, what is left of it is killed before long."""
        patience = GRACE_SECONDS
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self.child.wait(POLL_SECONDS)
            if self.is_over():
                patience -= POLL_SECONDS
                if patience <= 0:
                    kill_tree(self.child)

    def is_over(self) -> bool:
        """Whether a process of the stage has failed, or another node stopped what saves nothing."""
        failure = first_failure(self.folder)
        if failure is not None and failure != self.before[1] and failure.code != RESUME_CODE:
            return True
        return self.was_asked() and not self.asked and not (self.folder / STOPPABLE).exists()

    def was_asked(self) -> bool:
        """Whether this node or another one was asked to stop."""
        return self.asked or asked_at(self.folder) not in (0, self.before[0])

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal: the first one asks a training to save and end, all others kill."""
        if self.asked or not (self.folder / STOPPABLE).exists():
            kill_tree(self.child)
        self.asked = True
        (self.folder / STOP).touch()


@contextmanager
def at_work(command: Sequence[str], folder: Path, *, follows: bool = False) -> Iterator[Work]:
    """Start the command that works on a stage's folder; it is to be waited for in the block.

    Where it was asked to stop, by whichever node, the folder says so until the next start. One that `follows`
    another node leaves that one's marks in the folder as they are.
    """
    for name in () if follows else (STOP, STOPPABLE):
        (folder / name).unlink(missing_ok=True)
    before = asked_at(folder), first_failure(folder)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        child = subprocess.Popen(command, env=as_its_starter())  # it has them blocked too
        work = Work(folder, child, before)
        with hearing(work.hear):
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            yield work
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def asked_at(folder: Path) -> int:
    """When the work on a folder was last asked to stop, in nanoseconds; 0 where it was not."""
    with suppress(FileNotFoundError):
        return (folder / STOP).stat().st_mtime_ns
    return 0


def kill_tree(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and all below it, and see them end; none of them says a word."""
    doomed, until = freeze(child), time.monotonic() + GRACE_SECONDS
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    while any(map(lives, doomed)) and time.monotonic() < until:
        time.sleep(POLL_SECONDS / 10)


def freeze(child: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """A process and all below it, which stand still: none starts another one that would be missed."""
    known: list[psutil.Process] = []
    while new := [process for process in family(child.pid) if process not in known]:
        for process in new:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        known += new
    return known


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it; none where it has ended."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
