"""What the processes of a stage leave in its folder: where each is, and why one ended. No torch here.

A process that waits for another cannot ask it; it reads its file. A file is overwritten in place, so what a
stopped or killed process wrote last is there. The folder goes when the stage is done.

Some stages make files together and send no messages. There a process waits for the files of others for as
long as one of these gets on with its work, which `at` tells.
"""

import json
import os
import re
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from embedtrain.artifacts import write_json
from embedtrain.config.errors import UserError

FOLDER = "processes"
PLACE_BYTES = 512
WAITING = "wait for files"
LOOK_SECONDS = 1.0
"""Between two looks at where the others are."""
TIMED_OUT = re.compile(r"timed out|timeout", re.IGNORECASE)
LOST = re.compile(r"timed out|timeout|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)
"""What gloo and nccl say of a process that does not answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is: `meeting` counts where all must come, `what` is it or the work before the next."""

    rank: int
    pid: int
    host: str
    meeting: int = 0
    what: str = "start"
    step: int | None = None

    def describe(self) -> str:
        """`step 11 'encode'`."""
        return f"'{self.what}'" if self.step is None else f"step {self.step} '{self.what}'"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a process ended. `message` is complete; `code` is what the process ends with."""

    rank: int
    message: str
    code: int
    time: float


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
        self._write()

    def at(self, what: str, step: int | None = None) -> None:
        """Work that this process does by itself; of the same step where none is given."""
        now = self.now
        self.now = Place(now.rank, now.pid, now.host, now.meeting, what, now.step if step is None else step)
        self._write()

    @contextmanager
    def meeting(self, what: str) -> Iterator[None]:
        """Where all processes come; left only when they have."""
        now = self.now
        self.now = Place(now.rank, now.pid, now.host, now.meeting + 1, what, now.step)
        self._write()
        yield
        self.at(f"after {what}")

    def close(self) -> None:
        """Leave the file as it is."""
        os.close(self.file)

    def _write(self) -> None:
        now = {name: getattr(self.now, name) for name in Place.__slots__}
        with suppress(OSError):
            os.pwrite(self.file, json.dumps(now).encode().ljust(PLACE_BYTES), 0)


_here: Places | None = None


def begin(folder: Path, rank: int, seconds: float) -> None:
    """From now on this process, one of several, says in the stage's folder where it is."""
    global _here
    _here = Places(folder, rank, seconds)


def end() -> None:
    """Say no more."""
    global _here
    if _here is not None:
        _here.close()
        _here = None


def at(what: str, step: int | None = None) -> None:
    """Say what this process does now, for those that will wait for it."""
    if _here is not None:
        _here.at(what, step)


def meeting(what: str) -> AbstractContextManager[None]:
    """Say that this process is where all come."""
    return nullcontext() if _here is None else _here.meeting(what)


def wait_for(
    paths: Iterable[Path],
    *,
    arrived: Callable[[Path], object] = lambda path: None,
    poll_seconds: float = 0.05,
) -> None:
    """Return once every file is there, which other processes make; `arrived` is called with each.

    The launcher ends all processes when one fails. Raises RuntimeError where the launcher itself was killed,
    so that no process waits for ever, and Stalled where no other process gets on for the machine's timeout.
    """
    parent, before, patience = os.getppid(), None, None
    for path in paths:
        while not path.exists():
            if os.getppid() != parent:
                raise RuntimeError(f"what started this process has ended; {path} will never come")
            if _here is not None and patience is None:
                before, patience = _here.now.what, Patience(_here)
                at(WAITING)
            if patience is not None:
                patience.check(path)
            time.sleep(poll_seconds)
        arrived(path)
    if before is not None:
        at(before)


class Stalled(RuntimeError):
    """The processes that make what this one waits for stand still."""


class Patience:
    """With the other processes of a stage: it ends where none of them gets any further."""

    def __init__(self, here: Places) -> None:
        """Begin to look."""
        self.here, self.others = here, list[Place]()
        self.looked = self.moved = time.monotonic()

    def check(self, wanted: Path) -> None:
        """Raises Stalled, which names who is at work and where, where all have stood still for too long."""
        now, seconds = time.monotonic(), self.here.seconds
        if now - self.looked < min(LOOK_SECONDS, seconds / 4):
            return
        self.looked = now
        others = [p for p in read_places(self.here.stage) if p.rank != self.here.now.rank]
        if others != self.others:
            self.others, self.moved = others, now
        elif now - self.moved > seconds:
            at_work = [p for p in others if p.what != WAITING] or others
            told = [
                f"process {p.rank} has got no further for {seconds:g} s; it was last at {p.describe()}"
                for p in at_work
            ]
            raise Stalled(f"{'; '.join(told)}; process {self.here.now.rank} waits for {wanted}")


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


def is_lost(error: BaseException) -> bool:
    """Whether torch's error says that another process does not answer."""
    said = str(error)
    is_of_group = type(error).__name__.startswith("Dist") or re.search("gloo|nccl", said, re.IGNORECASE)
    return isinstance(error, RuntimeError) and bool(is_of_group and LOST.search(said))


def fail(folder: Path, stage: str, error: Exception, seconds: float) -> BaseException:
    """What to raise of an error in this process: the first to fail tells the user, the others end in silence.

    All leave `failure-RANK.json`; what is no user's mistake leaves its traceback in `failure-RANK.log`.
    """
    rank, place = int(os.environ.get("RANK", "0")), folder / FOLDER
    is_foreseen = isinstance(error, UserError)
    told = error if is_foreseen else UserError(describe_crash(folder, stage, error, rank, seconds))
    code, is_first = int(getattr(told, "code", 2)), True
    with suppress(OSError):  # a full disk is told too
        place.mkdir(exist_ok=True)
        is_first = begin_to_tell(place) or "WORLD_SIZE" not in os.environ
        if not is_foreseen:
            crash_log(folder, rank).write_text("".join(traceback.format_exception(error)))
        write_json(place / f"failure-{rank}.json", asdict(Failure(rank, str(told), code, time.time())))
    return told if is_first else SystemExit(code)


def crash_log(folder: Path, rank: int) -> Path:
    """The traceback of what a process did not foresee."""
    return folder / FOLDER / f"failure-{rank}.log"


def begin_to_tell(place: Path) -> bool:
    """Whether this process is the first of its launcher's to fail."""
    try:
        os.close(os.open(place / f"told-{os.getppid()}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def has_told(folder: Path) -> bool:
    """Whether a process has said why it ended, though a full disk may have kept no more of it than this."""
    return any((folder / FOLDER).glob("told-*"))


def describe_crash(folder: Path, stage: str, error: Exception, rank: int, seconds: float) -> str:
    """What an unforeseen error is told as: one line."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if isinstance(error, Stalled):
        return f"stage '{stage}': {error}"
    if world > 1 and is_lost(error):
        waited = seconds if TIMED_OUT.search(str(error)) else None
        return f"stage '{stage}': {describe_missing(folder, rank, waited)}"
    who = f" in process {rank} of {world}" if world > 1 else ""
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return f"stage '{stage}' crashed{who}: {said}; the traceback is in {crash_log(folder, rank)}"


def first_failure(folder: Path) -> Failure | None:
    """Why the first process ended that said so."""
    found = []
    for path in (folder / FOLDER).glob("failure-*.json"):
        with suppress(ValueError, TypeError, OSError):
            found.append(Failure(**json.loads(path.read_text())))
    return min(found, key=lambda failure: failure.time, default=None)
