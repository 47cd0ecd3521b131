"""What a user is told: one plain sentence a fault, all faults at once, never a traceback."""

import errno
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

FOREIGN = {
    "batch": "batch_size",
    "epochs": "steps",
    "gradient_accumulation_steps": "batch_size",
    "learning_rate": "lr",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_r": "rank",
    "loss": "objective",
    "mask_same_text": "masks",
    "matryoshka_dims": "dims",
    "matryoshka_weights": "weights",
    "max_steps": "steps",
    "per_device_train_batch_size": "batch_size",
    "r": "rank",
    "scale": "temperature",
    "target_modules": "targets",
    "tau": "temperature",
    "type": "kind",
    "use_rslora": "rslora",
    "warmup_ratio": "warmup_fraction",
}

PASSWORD = re.compile(r"(?<=://)[^\s/?#'\"]*@")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UserError(Exception):
    """A user's mistake. Its text is complete: one or several lines, shown without a traceback."""


class NotFinite(UserError):
    """A batch gave what is no number. A training skips the step; everywhere else it is an error."""


class ConfigError(UserError):
    """All that is wrong with a config, one message a fault."""

    def __init__(self, messages: Iterable[str]) -> None:
        """Keep the messages in order, each once."""
        self.messages = list(dict.fromkeys(messages))
        super().__init__("\n".join(self.messages))


def hide_passwords(text: str) -> str:
    """The text without what stands before the host of an address: `https://[hidden]@host`."""
    return PASSWORD.sub("[hidden]@", text)


@contextmanager
def disk_full_is_an_error(place: Path | str = "", needed: int | None = None) -> Iterator[None]:
    """Raise UserError where the disk, a quota or a limit of file sizes ends a write to `place`.

    It says how many bytes are free there, and how many are `needed` where that is known.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        where = str(place or getattr(error, "filename", None) or "")
        room = describe_room(Path(where), needed) if where else ""
        text = f"{where}: no space left to write it{room}; make room and run again"
        raise UserError(text.lstrip(": ")) from None


def describe_room(place: Path, needed: int | None) -> str:
    """`, 10,240 bytes are free and 65,536 are needed`: by the nearest folder that is there."""
    there = next((folder for folder in (place, *place.parents) if folder.exists()), Path())
    free = f", {shutil.disk_usage(there).free:,} bytes are free"
    return free if needed is None else f"{free} and {needed:,} are needed"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error tells of a full disk; those of other languages' libraries say the number in words."""
    said = re.search(r"\b(?:os error|errno) (\d+)", str(error), re.IGNORECASE)
    number = error.errno if isinstance(error, OSError) and error.errno else int(said[1]) if said else None
    return number in FULL


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the known names where none is near."""
    names = list(dict.fromkeys(known))
    if FOREIGN.get(word) in names:
        return f"did you mean '{FOREIGN[word]}'?"
    if near := get_close_matches(word, names, n=1):
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if names else "there is none"


def found(value: object) -> str:
    """A value as a person would name it: `'fast' (text)`, `2.5 (number)`, `a list`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f"{shorten(value)} (text)" if value else "empty text"
        case int() | float():
            return f"{value} (number)"
        case Mapping():
            return "a section of keys"
        case _:
            return "a list"


def shorten(text: str, width: int = 60) -> str:
    """The text in quotes, cut where it is long."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def near_file(path: Path) -> str:
    """`; did you mean 'x'?` where a file of nearly that name is there, or that its folder is missing."""
    parent = path.parent
    if not parent.is_dir():
        return f"; there is no folder '{parent}'"
    near = get_close_matches(path.name, [p.name for p in parent.iterdir()], n=1)
    return f"; did you mean '{parent / near[0]}'?" if near else ""
