"""What the files beside rows say about their licence."""

import re
from dataclasses import dataclass
from pathlib import Path

CARD = "card.md"
FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "COPYING")
LONGEST = 200  # characters shown


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence and the overlap with MTEB as the card states them (None: not stated), and the files."""

    stated: str | None
    mteb_overlap: str | None
    files: tuple[str, ...]


def read_licence(rows: Path) -> Licence:
    """What card.md and LICENSE say, in the folder of rows or in that of the file of rows."""
    folder = rows if rows.is_dir() else rows.parent
    files = tuple(name for name in (CARD, *FILES) if (folder / name).is_file())
    card = (folder / CARD).read_text(encoding="utf-8", errors="replace") if CARD in files else ""
    stated = section(card, "licen[cs]e") or next(
        (first_line(folder / name) for name in files if name != CARD), None
    )
    return Licence(stated, section(card, r"[^\n]*\bMTEB\b[^\n]*"), files)


def section(card: str, title: str) -> str | None:
    """The first paragraph below a heading of that title, or the value of such a line in a front matter."""
    found = re.search(rf"(?ims)^#+ *(?:{title}) *$\s*([^\s#].*?)(?=\n\s*\n|\n#|\Z)", card) or re.search(
        rf"(?im)^(?:{title}): *(\S.*)$", card
    )
    return shorten(found[1]) if found else None


def first_line(path: Path) -> str | None:
    """The first line that says something."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((shorten(line) for line in lines if line), None)


def shorten(text: str) -> str:
    """One line of at most LONGEST characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 2].rstrip() + " …"
