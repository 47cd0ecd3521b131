"""Records of files: jsonl, json, csv, tsv (plain, .gz or .zst) and parquet, one after another."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Any

from embedtrain.config.errors import UserError, found, near_file
from embedtrain.data.formats.record import Record
from embedtrain.data.parquet import open_parquet, read_batches
from embedtrain.data.problems import Problems
from embedtrain.data.records import CANNOT_UNPACK, PACKED, open_bytes, parse_object, read_lines, read_objects


def kind_of(path: Path) -> str:
    """The suffix that tells how a file is read; a packed file's is the one before .gz or .zst."""
    return (path.with_suffix("") if path.suffix in PACKED and path.suffix else path).suffix


def is_data_file(path: Path) -> bool:
    """Whether records can be read from it, by its name."""
    return path.is_file() and kind_of(path) in READERS and not path.name.startswith(".")


def read_file(path: Path, problems: Problems) -> Iterator[Record]:
    """The records of a file; what cannot be read is added to the problems."""
    if not path.is_file():
        raise UserError(f"{path}: no such file{near_file(path)}")
    if kind_of(path) not in READERS:
        raise UserError(
            f"{path}: unknown kind of file; expected {', '.join(READERS)} (all but .parquet also with "
            f"{' or '.join(PACKED)} after it)"
        )
    yield from READERS[kind_of(path)](path, problems)


def read_json_lines(path: Path, problems: Problems) -> Iterator[Record]:
    """One JSON object a line; blank lines are passed over."""
    return starmap(Record, read_objects(path, problems))


def read_json(path: Path, problems: Problems) -> Iterator[Record]:
    """A .json file: an object a line, or one list or object over many lines (which is held in memory)."""
    if is_json_lines(path):
        yield from read_json_lines(path, problems)
        return
    whole = parse_whole(path)
    if isinstance(whole, dict):
        yield Record(str(path), whole)
        return
    for number, item in enumerate(whole if isinstance(whole, list) else [whole], 1):
        if isinstance(item, dict):
            yield Record(f"{path}: item {number}", item)
        else:
            problems.add(f"{path}: item {number}", f"found {found(item)}, expected a JSON object with keys")


def is_json_lines(path: Path) -> bool:
    """Whether the first line that is not blank is a JSON object by itself."""
    for _, line in read_lines(path, Problems()):
        if line.strip():
            return parse_object(line, str(path), Problems()) is not None
    return True


def parse_whole(path: Path) -> Any:
    """The value of a file that is one JSON text."""
    try:
        with open_bytes(path) as file:
            return json.loads(file.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start + 1})") from None
    except CANNOT_UNPACK as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def read_table(path: Path, problems: Problems) -> Iterator[Record]:
    """A csv or tsv file whose first line names the columns. Cells may be quoted and hold line ends."""
    csv.field_size_limit(sys.maxsize)
    lines = (line for _, line in read_lines(path, problems))
    cells = csv.reader(lines, delimiter="\t" if kind_of(path) == ".tsv" else ",", strict=True)
    names: list[str] = []
    while True:
        number = cells.line_num + 1
        try:
            row = next(cells, None)
        except csv.Error as error:
            problems.add(f"{path}:{number}", f"broken table: {error}")
            return
        if row is None:
            return
        if not names:
            names = row
            if repeated := [name for name, times in Counter(names).items() if times > 1]:
                problems.add(f"{path}:1", f"the first line names columns, and '{repeated[0]}' comes twice")
                return
        elif row and len(row) != len(names):
            problems.add(
                f"{path}:{number}", f"{len(row)} cells for the {len(names)} columns of the first line"
            )
        elif row:
            yield Record(f"{path}:{number}", dict(zip(names, row, strict=True)), only_text=True)


def read_parquet(path: Path, problems: Problems) -> Iterator[Record]:
    """The rows of a parquet file, batch by batch."""
    for start, batch in read_batches(open_parquet(path), path, problems):
        for number, values in enumerate(batch.to_pylist(), start + 1):
            yield Record(f"{path}: row {number}", values)


Reader = Callable[[Path, Problems], Iterator[Record]]
READERS: dict[str, Reader] = {
    ".jsonl": read_json_lines,
    ".json": read_json,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
}
