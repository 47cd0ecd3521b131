"""The worked examples of docs/data.md: their files, commands and the rows they show, in order."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedtrain.data.rows import Row

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data.md"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Example:
    """A command, the files that the page has shown before it, and the rows it shows after it."""

    files: dict[str, str] = field(default_factory=dict)
    command: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def out(self) -> str:
        """The folder that the command, or the script that it runs, writes."""
        text = self.command + self.files.get(self.command.removeprefix("python "), "")
        return re.findall(r"rows/\w+", text)[0]


def read_examples() -> Iterator[Example]:
    """Every example of the page; a file may serve several commands."""
    files: dict[str, str] = {}
    command = ""
    for kind, title, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if title == "rows":
            rows = [read_row(json.loads(line)) for line in text.splitlines()]
            yield Example(dict(files), command, rows)
            command = ""
        elif title:
            files[title] = text
            command = f"python {title}" if kind == "python" else command
        elif kind == "sh" and " rows/" in text and "..." not in text:
            command = text.strip()


def read_row(record: dict[str, Any]) -> Row:
    """The row of a line of the page."""
    return Row(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write the files of an example."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
