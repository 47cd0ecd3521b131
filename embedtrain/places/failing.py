"""Why a process ended, for the user, the other processes and the pipeline."""

import json
import os
import re
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from embedtrain.artifacts import write_json
from embedtrain.config.errors import UserError
from embedtrain.places.place import FOLDER, describe_missing
from embedtrain.places.waiting import Stalled

TIMED_OUT = re.compile(r"timed out|timeout", re.IGNORECASE)
LOST = re.compile(r"timed out|timeout|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)
"""What gloo and nccl say of a process that does not answer."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a process ended. `message` is complete; `code` is what the process ends with."""

    rank: int
    message: str
    code: int
    time: float


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
