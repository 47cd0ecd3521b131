"""The canonical row, and reading and writing files of rows with their texts: .jsonl, .jsonl.gz, .parquet."""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import UserError, found, nearest, shorten
from embedtrain.data.parquet import open_parquet, read_batches
from embedtrain.data.problems import Problems
from embedtrain.data.records import check_file, read_objects

INLINE_VERSION, FOLDER_VERSION = 1, 2  # texts in the rows; ids in the rows, texts beside them
VERSION_KEY = b"embedtrain_rows"
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
    task: str | None = None
    instruction: str | None = None
    source: str | None = None


KEYS = tuple(field.name for field in fields(Row))
TEXTS, NUMBERS = ("positives", "negatives"), ("positive_scores", "negative_scores")
NAMES = ("label", "task", "instruction", "source")
COLUMNS = pa.schema(
    [("query", pa.string())]
    + [(name, pa.list_(pa.string())) for name in TEXTS]
    + [(name, pa.list_(pa.float64())) for name in NUMBERS]
    + [("score", pa.float64())]
    + [(name, pa.string()) for name in NAMES]
)


def text_key(text: str) -> int:
    """A signed 64-bit hash of the text without surrounding white space: equal texts, equal keys."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)


def read_rows(path: Path | str) -> list[Row]:
    """All rows of a small file. Raises UserError: each fault's place and key, what was found and expected."""
    problems = Problems()
    rows = list(stream_rows(check_file(path), problems))
    problems.require()
    if not rows:
        raise UserError(f"{path}: no rows; expected at least one")
    return rows


def write_rows(path: Path | str, rows: Sequence[Row]) -> Path:
    """Write rows as parquet, atomically; columns that no row fills are left out. Equal rows, equal bytes."""
    problems = Problems()
    for number, row in enumerate(rows, 1):
        if fault := row_fault(row):
            problems.add(f"{path}: row {number}", fault)
    problems.require()
    values = {name: [getattr(row, name) for row in rows] for name in KEYS}
    used = [field for field in COLUMNS if field.name in KEYS[:2] or any(filled(values[field.name]))]
    table = pa.table(
        {field.name: values[field.name] for field in used},
        schema=pa.schema(used, metadata={VERSION_KEY: str(INLINE_VERSION)}),
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=19)
    return write_atomic(path, buffer.getvalue())


def filled(values: Iterable[object]) -> Iterator[bool]:
    """For each value, whether it says anything."""
    return (value is not None and value != () for value in values)


def stream_rows(path: Path, problems: Problems) -> Iterator[Row]:
    """The sound rows of a file one after the other; what is wrong with the others goes to `problems`."""
    for place, record in read_records(path, problems):
        if row := make_row(record, place, problems):
            yield row


def read_records(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, raw record) of each row; place is `file:line`, or `file: row n` in parquet."""
    if path.suffix != ".parquet":
        yield from read_objects(path, problems)
        return
    for start, batch in read_batches(open_rows_parquet(path), path, problems):
        for number, record in enumerate(batch.to_pylist(), start + 1):
            yield f"{path}: row {number}", record


def open_rows_parquet(path: Path) -> pq.ParquetFile:
    """The parquet file, its version and columns checked; its rows not yet read."""
    file, problems = open_parquet(path), Problems()
    if read_version(file, path) > INLINE_VERSION:
        raise UserError(f"{path}: holds ids of texts, not texts; give the folder that it is in")
    for field in file.schema_arrow:
        if field.name not in KEYS:
            problems.add(f"{path}: column", unknown_key(field.name))
        elif not fits(field.type, COLUMNS.field(field.name).type):
            problems.add(
                f"{path}: column '{field.name}'", f"found {field.type}, expected {EXPECTED[field.name]}"
            )
    for name in KEYS[:2]:
        if name not in file.schema_arrow.names and not problems:
            problems.add(f"{path}: column '{name}'", f"is missing; expected {EXPECTED[name]}")
    problems.require()
    return file


def read_version(file: pq.ParquetFile, path: Path) -> int:
    """The version of the rows; UserError where a later embedtrain wrote them."""
    version = int((file.schema_arrow.metadata or {}).get(VERSION_KEY, INLINE_VERSION))
    if version > FOLDER_VERSION:
        raise UserError(
            f"{path}: rows of version {version}; this embedtrain reads up to {FOLDER_VERSION}: upgrade it"
        )
    return version


def fits(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column of one type can be read as the other: wider or encoded text, any numbers, nothing."""
    types = pa.types
    if types.is_dictionary(given):
        return fits(given.value_type, wanted)
    if types.is_list(wanted):
        is_list = types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given)
        return types.is_null(given) or (is_list and fits(given.value_type, wanted.value_type))
    if types.is_floating(wanted):
        return types.is_null(given) or types.is_floating(given) or types.is_integer(given)
    if types.is_integer(wanted):
        return bool(types.is_integer(given))
    return bool(types.is_null(given) or types.is_string(given) or types.is_large_string(given))


def unknown_key(key: str) -> str:
    """What to say of a name that is no key of a row."""
    hint = f"did you mean '{OTHER_NAMES[key]}'?" if key in OTHER_NAMES else nearest(key, KEYS)
    return f"'{key}': unknown key; {hint}"


def make_row(record: dict[str, Any], place: str, problems: Problems) -> Row | None:
    """The row that a record describes, or none where it has faults. A null stands for an absent key."""
    given = {key: value for key, value in record.items() if value is not None}
    faults = list(record_faults(record, given))
    if not faults:
        row = Row(**{key: keep(value) for key, value in given.items()})
        if (fault := row_fault(row)) is None:
            return row
        faults = [fault]
    for fault in faults:
        problems.add(place, fault)
    return None


def record_faults(record: dict[str, Any], given: dict[str, Any]) -> Iterator[str]:
    """Keys that are unknown, missing, or of another type."""
    yield from (unknown_key(key) for key in record if key not in KEYS)
    for key in KEYS[:2]:
        if key not in given and not record.keys() - KEYS:
            yield f"'{key}' is missing; expected {EXPECTED[key]}"
    for key, value in given.items():
        if key in KEYS:
            yield from value_faults(key, value)


EXPECTED = (
    dict.fromkeys(("query", *NAMES), "text")
    | dict.fromkeys(TEXTS, "a list of texts")
    | dict.fromkeys(NUMBERS, "a list of finite numbers")
    | {"score": "a finite number"}
)


def value_faults(key: str, value: Any) -> Iterator[str]:
    """What is wrong with the type of a raw value."""
    valid = is_number if key in NUMBERS or key == "score" else is_text
    if key not in TEXTS + NUMBERS:
        if not valid(value):
            yield f"'{key}': found {found(value)}, expected {EXPECTED[key]}"
    elif not isinstance(value, list):
        yield f"'{key}': found {found(value)}, expected {EXPECTED[key]}"
    else:
        for number, item in enumerate(value):
            if not valid(item):
                yield f"'{key}[{number}]': found {found(item)}, expected {EXPECTED[key]}"


def keep(value: Any) -> Any:
    """A value as the row keeps it: lists as tuples, numbers as floats."""
    if isinstance(value, list):
        return tuple(keep(item) for item in value)
    return value if isinstance(value, str) else float(value)


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
