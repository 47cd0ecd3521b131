"""Where each process of a stage is: a file a process, overwritten in place."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = "processes"
PLACE_BYTES = 512
BEAT_SECONDS = 10.0
ENDED = "the end"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is: `meeting` counts where all must come, `what` is it or the work before the next.

    `beats` grows as long as the process lives, whatever it is at.
    """

    rank: int
    pid: int
    host: str
    meeting: int = 0
    what: str = "start"
    step: int | None = None
    beats: int = 0

    def describe(self) -> str:
        """`step 11 'encode'`."""
        return f"'{self.what}'" if self.step is None else f"step {self.step} '{self.what}'"


class Places:
    """This process's place, kept up to date in its file."""

    def __init__(self, folder: Path, rank: int, seconds: float) -> None:
        """Write the first; the file has its whole size from then on, whatever becomes of the disk.

        `seconds` is how long others may let this process wait.
        """
        self.stage, self.seconds = folder, seconds
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        path = folder / FOLDER / f"place-{rank}.json"
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.now = Place(rank, os.getpid(), socket.gethostname())
        self.lock, self.closed = threading.Lock(), threading.Event()
        self.move(self.now)

    def beat(self) -> None:
        """From now on show that this process lives, beside all that it does."""

        def go_on() -> None:
            while not self.closed.wait(min(BEAT_SECONDS, self.seconds / 8)):
                with self.lock:
                    self.move(replace(self.now, beats=self.now.beats + 1))

        threading.Thread(target=go_on, daemon=True).start()

    def at(self, what: str, step: int | None = None) -> None:
        """Work that this process does by itself; of the same step where none is given."""
        with self.lock:
            self.move(replace(self.now, what=what, step=self.now.step if step is None else step))

    @contextmanager
    def meeting(self, what: str) -> Iterator[None]:
        """Where all processes come; left only when they have."""
        with self.lock:
            self.move(replace(self.now, meeting=self.now.meeting + 1, what=what))
        yield
        self.at(f"after {what}")

    def close(self) -> None:
        """Leave the file as it is."""
        with self.lock:
            if not self.closed.is_set():
                self.closed.set()
                os.close(self.file)

    def move(self, to: Place) -> None:
        """Write it down, cut where its file is too small."""
        if self.closed.is_set():
            return
        self.now, line = to, b""
        for most in (len(to.what), 60, 0):
            fields = {name: getattr(to, name) for name in Place.__slots__} | {"what": to.what[:most]}
            line = json.dumps(fields).encode()
            if len(line) <= PLACE_BYTES:
                break
        with suppress(OSError):
            os.pwrite(self.file, line.ljust(PLACE_BYTES), 0)


_here: Places | None = None


def begin(folder: Path, rank: int, seconds: float) -> Places:
    """From now on this process, one of several, says in the folder where it is, and that it lives."""
    global _here
    _here = Places(folder, rank, seconds)
    _here.beat()
    return _here


def here() -> Places | None:
    """Where this process is; None for one that works alone."""
    return _here


def end() -> None:
    """Say no more: nobody waits for this process."""
    global _here
    if _here is not None:
        _here.at(ENDED)
        _here.close()
        _here = None


def at(what: str, step: int | None = None) -> None:
    """Say what this process does now, for those that will wait for it."""
    if _here is not None:
        _here.at(what, step)


def meeting(what: str) -> AbstractContextManager[None]:
    """Say that this process is where all come."""
    return nullcontext() if _here is None else _here.meeting(what)


def read_places(folder: Path) -> list[Place]:
    """The places of all processes, by rank; one that is being written is left out."""
    found = []
    for path in (folder / FOLDER).glob("place-*.json"):
        with suppress(ValueError, TypeError, OSError):
            found.append(Place(**json.loads(path.read_text())))
    return sorted(found, key=lambda place: place.rank)


def describe_missing(folder: Path, rank: int, seconds: float | None) -> str:
    """Whom process `rank` waits for in vain, where, and where they were last; `seconds` unless they ended."""
    places = read_places(folder)
    own = next((place for place in places if place.rank == rank), None)
    if own is None or len(places) < 2:
        return f"process {rank} waits in vain for the others to start"
    others = [place for place in places if place.rank != rank]
    missing = [place for place in others if place.meeting < own.meeting]
    where = f"'{own.what}'" + ("" if own.step is None else f" of step {own.step}")
    if seconds is None:
        told = [f"process {p.rank}, which was last at {p.describe()}" for p in missing or others]
        return f"process {rank} waits in {where}, and has lost {'; '.join(told)}"
    to = "to" if missing else "out of"
    told = [
        f"process {p.rank} has not come {to} {where} for {seconds:g} s; it was last at {p.describe()}"
        for p in missing or others
    ]
    return "; ".join(told)
