"""The canonical row, and reading and writing files of rows: .jsonl, .jsonl.gz and .parquet."""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import UserError, found, near_file, nearest, shorten

SCHEMA_VERSION = 1
VERSION_KEY = b"embedtrain_rows"
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
OTHER_NAMES = {
    "anchor": "query",
    "document": "positives",
    "neg": "negatives",
    "pos": "positives",
    "prompt": "instruction",
    "question": "query",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One query with the documents that answer it and those that do not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    positive_scores: tuple[float, ...] | None = None
    negative_scores: tuple[float, ...] | None = None
    score: float | None = None
    label: str | None = None
    instruction: str | None = None
    source: str | None = None


KEYS = tuple(field.name for field in fields(Row))
TEXTS, NUMBERS = ("positives", "negatives"), ("positive_scores", "negative_scores")
COLUMNS = pa.schema(
    [("query", pa.string())]
    + [(name, pa.list_(pa.string())) for name in TEXTS]
    + [(name, pa.list_(pa.float64())) for name in NUMBERS]
    + [("score", pa.float64())]
    + [(name, pa.string()) for name in ("label", "instruction", "source")]
)


def text_key(text: str) -> int:
    """A signed 64-bit hash of the text without surrounding white space: equal texts, equal keys."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)


def read_rows(path: Path | str) -> list[Row]:
    """All rows of a file, checked. Raises UserError: the place, the key, what was found and expected."""
    path = check_file(path)
    rows = [make_row(record, place) for place, record in read_records(path)]
    if not rows:
        raise UserError(f"{path}: no rows; expected at least one")
    return rows


def count_rows(path: Path | str) -> int:
    """Number of rows: from a parquet file's footer, else by counting lines."""
    path = check_file(path)
    if path.suffix == ".parquet":
        return int(open_parquet(path).metadata.num_rows)
    return sum(1 for _ in read_lines(path))


def write_rows(path: Path | str, rows: Sequence[Row]) -> Path:
    """Write rows as parquet, atomically; columns that no row fills are left out. Equal rows, equal bytes."""
    for number, row in enumerate(rows, 1):
        if fault := row_fault(row):
            raise UserError(f"{path}: row {number}: {fault}")
    values = {name: [getattr(row, name) for row in rows] for name in KEYS}
    used = [field for field in COLUMNS if field.name in KEYS[:2] or any(filled(values[field.name]))]
    table = pa.table(
        {field.name: values[field.name] for field in used},
        schema=pa.schema(used, metadata={VERSION_KEY: str(SCHEMA_VERSION)}),
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=19)
    return write_atomic(path, buffer.getvalue())


def filled(values: Iterable[object]) -> Iterator[bool]:
    """For each value, whether it says anything."""
    return (value is not None and value != () for value in values)


def check_file(path: Path | str) -> Path:
    """The path, where it names a file of a kind that is read."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else f"no such file{near_file(path)}"
        raise UserError(f"{path}: {what}")
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}")
    return path


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, raw record) of each row; place is `file:line`, or `file: row n` in parquet."""
    if path.suffix == ".parquet":
        yield from read_parquet(path)
        return
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place}: broken JSON at column {error.colno}: {error.msg}") from None
        if not isinstance(record, dict):
            raise UserError(f"{place}: found {found(record)}, expected a JSON object with keys")
        yield place, record


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not blank."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip().decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: not UTF-8 text (byte {error.start + 1} of the line)") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}:{number + 1}: broken gzip file: {error}") from None


def open_parquet(path: Path) -> pq.ParquetFile:
    """The parquet file, its columns and version checked; its rows not yet read."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None
    version = int((file.schema_arrow.metadata or {}).get(VERSION_KEY, SCHEMA_VERSION))
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: rows of version {version}; this embedtrain reads up to {SCHEMA_VERSION}: upgrade it"
        )
    for name in file.schema_arrow.names:
        check_key(name, f"{path}: column")
    return file


def read_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each row of a parquet file."""
    number = 0
    for batch in open_parquet(path).iter_batches(8192):
        for record in batch.to_pylist():
            number += 1
            yield f"{path}: row {number}", record


def check_key(key: str, place: str) -> None:
    """Raise UserError where `key` is no key of a row."""
    if key not in KEYS:
        hint = f"did you mean '{OTHER_NAMES[key]}'?" if key in OTHER_NAMES else nearest(key, KEYS)
        raise UserError(f"{place}: '{key}': unknown key; {hint}")


def make_row(record: dict[str, Any], place: str) -> Row:
    """The row that a record describes. A null stands for an absent key."""
    for key in record:
        check_key(key, place)
    given = {key: value for key, value in record.items() if value is not None}
    for key in ("query", "positives"):
        if key not in given:
            raise UserError(f"{place}: '{key}' is missing; expected {EXPECTED[key]}")
    row = Row(**{key: make_value(key, value, place) for key, value in given.items()})
    if fault := row_fault(row):
        raise UserError(f"{place}: {fault}")
    return row


EXPECTED = (
    dict.fromkeys(("query", "label", "instruction", "source"), "text")
    | dict.fromkeys(TEXTS, "a list of texts")
    | dict.fromkeys(NUMBERS, "a list of finite numbers")
    | {"score": "a finite number"}
)


def make_value(key: str, value: Any, place: str) -> Any:
    """A raw value as the row keeps it."""
    if key in TEXTS + NUMBERS:
        if not isinstance(value, list):
            raise UserError(f"{place}: '{key}': found {found(value)}, expected {EXPECTED[key]}")
        valid = is_text if key in TEXTS else is_number
        for number, item in enumerate(value):
            if not valid(item):
                raise UserError(f"{place}: '{key}[{number}]': found {found(item)}, expected {EXPECTED[key]}")
        return tuple(value) if key in TEXTS else tuple(float(item) for item in value)
    if not (is_number if key == "score" else is_text)(value):
        raise UserError(f"{place}: '{key}': found {found(value)}, expected {EXPECTED[key]}")
    return float(value) if key == "score" else str(value)


def is_text(value: object) -> bool:
    """Whether the value is text that UTF-8 can hold (JSON can escape halves of characters that it cannot)."""
    return isinstance(value, str) and not HALF_CHARACTER.search(value)


def is_number(value: object) -> bool:
    """Whether the value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def row_fault(row: Row) -> str | None:
    """What makes a row of right types unusable, if anything."""
    if not row.query.strip():
        return "'query': found blank text, expected a query"
    if not row.positives:
        return "'positives': found an empty list, expected at least one text"
    for key in TEXTS:
        texts, scores = getattr(row, key), getattr(row, f"{key[:-1]}_scores")
        for number, text in enumerate(texts):
            if not text.strip():
                return f"'{key}[{number}]': found blank text, expected a document"
        if scores is not None and len(scores) != len(texts):
            return f"'{key[:-1]}_scores': found {len(scores)} scores for {len(texts)} {key}"
    known = {text.strip() for text in row.positives}
    for number, text in enumerate(row.negatives):
        if text.strip() in known:
            return f"'negatives[{number}]': {shorten(text)} is also a positive of this row"
    return None
