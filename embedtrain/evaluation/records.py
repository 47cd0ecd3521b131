"""Records of a test file with the place each came from, and checks that name it."""

import gzip
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.config.errors import UserError, found

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: `place` is `file:line`, or `file: row n` in parquet."""

    place: str
    values: Mapping[str, Any]

    def has(self, *keys: str) -> bool:
        """Whether all keys are there, with a value."""
        return all(self.values.get(key) is not None for key in keys)

    def require(self, key: str) -> Any:
        """The value, or a UserError."""
        if not self.has(key):
            raise UserError(
                f"{self.place}: no value for '{key}'; found {', '.join(self.values) or 'no keys'}"
            )
        return self.values[key]

    def text(self, key: str) -> str:
        """A string."""
        value = self.require(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text", value)
        return value

    def texts(self, key: str, or_none: bool = False) -> list[str]:
        """A string or a list of strings, as a list; an empty one only with `or_none`."""
        value = self.require(key)
        texts = [value] if isinstance(value, str) else value
        if not texts and not or_none:
            raise UserError(f"{self.place}: '{key}' is empty, expected a text or a list of texts")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise self.wrong(key, "a text or a list of texts", value)
        return texts

    def name(self, key: str) -> str:
        """An id: a string or an integer, as a string."""
        return str(self.label(key))

    def label(self, key: str) -> str | int:
        """A string or an integer."""
        value = self.require(key)
        if not isinstance(value, str | int):
            raise self.wrong(key, "a text or an integer", value)
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.require(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "a number", value)
        return float(value)

    def binary(self, key: str) -> int:
        """0 or 1."""
        value = self.require(key)
        if value not in (0, 1):
            raise self.wrong(key, "0 or 1", value)
        return int(value)

    def wrong(self, key: str, expected: str, value: Any) -> UserError:
        """The error of a value of another kind."""
        return UserError(f"{self.place}: '{key}' is {found(value)}, expected {expected}")


def is_data_file(path: Path) -> bool:
    """Whether records may be read from it, by its name."""
    return path.is_file() and path.name.endswith(SUFFIXES)


def read_records(path: Path) -> list[Record]:
    """All records of a jsonl, jsonl.gz or parquet file; at least one."""
    try:
        records = list(read_parquet(path) if path.suffix == ".parquet" else read_json_lines(path))
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not records:
        raise UserError(f"{path}: no rows")
    return records


def read_parquet(path: Path) -> Iterator[Record]:
    """The rows of a parquet file."""
    for number, values in enumerate(pq.read_table(path).to_pylist(), start=1):
        yield Record(f"{path}: row {number}", values)


def read_json_lines(path: Path) -> Iterator[Record]:
    """The lines of a jsonl file; blank ones are skipped."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield Record(f"{path}:{number}", parse_object(line, f"{path}:{number}"))


def parse_object(line: str, place: str) -> dict[str, Any]:
    """The JSON object of a line."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(value, dict):
        raise UserError(f"{place}: {found(value)}, expected a JSON object")
    return value
