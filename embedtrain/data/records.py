"""Raw records of files of rows: lines of JSON, gzipped or not, and batches of parquet."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.config.errors import UserError, found, near_file
from embedtrain.data.problems import Problems

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
ROWS, TEXTS_FILE = FILES = ("rows.parquet", "texts.parquet")  # of a folder of rows
BATCH_ROWS = 8192


def check_file(path: Path | str) -> Path:
    """The path, where it names a file of a kind that is read."""
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else f"no such file{near_file(path)}"
        raise UserError(f"{path}: {what}")
    if not path.name.endswith(SUFFIXES):
        raise UserError(f"{path}: unknown kind of file; expected {', '.join(SUFFIXES)}")
    return path


def is_row_folder(path: Path) -> bool:
    """Whether `path` is a folder of rows; raises UserError for a folder that is none."""
    if not path.is_dir():
        return False
    if absent := [name for name in FILES if not (path / name).is_file()]:
        raise UserError(
            f"{path}: a folder without {' and '.join(absent)}; expected a file of rows, or a folder that "
            "`embedtrain convert` wrote"
        )
    return True


def read_json_lines(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, record) of each line that holds a JSON object."""
    for number, line in read_lines(path, problems):
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add(place, f"broken JSON at column {error.colno}: {error.msg}")
            continue
        if isinstance(record, dict):
            yield place, record
        else:
            problems.add(place, f"found {found(record)}, expected a JSON object with keys")


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not blank."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.rstrip().decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    problems.add(f"{path}:{number}", f"not UTF-8 text (byte {error.start + 1} of the line)")
                    continue
                if text.strip():
                    yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problems.add(f"{path}:{number + 1}", f"broken gzip file: {error}")


def open_parquet(path: Path) -> pq.ParquetFile:
    """The parquet file; its rows are not yet read."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a parquet file: {error}") from None


def read_batches(
    file: pq.ParquetFile, path: Path, problems: Problems
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(rows before it, batch) of the sound batches of a parquet file.

    A row group that cannot be read is told with the columns at fault, as is text that is not UTF-8.
    """
    before = 0
    for group in range(file.num_row_groups):
        start, before = before, before + file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group]):
                if is_utf8(batch, start, path, problems):
                    yield start, batch
                start += len(batch)
        except (pa.ArrowException, OSError) as error:
            for name in broken_columns(file, group):
                reason = str(error).split("\n")[0]
                problems.add(f"{path}: row group {group + 1}: column '{name}'", f"cannot be read: {reason}")


def broken_columns(file: pq.ParquetFile, group: int) -> Iterator[str]:
    """Columns of a row group that cannot be read."""
    for name in file.schema_arrow.names:
        try:
            file.read_row_group(group, columns=[name])
        except (pa.ArrowException, OSError):
            yield name


def is_utf8(batch: pa.RecordBatch, start: int, path: Path, problems: Problems) -> bool:
    """Whether all text of a batch is UTF-8; parquet's readers take any bytes."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for name in batch.schema.names:
            for number, value in enumerate(batch[name], start + 1):
                try:
                    value.as_py()
                except UnicodeDecodeError:
                    problems.add(f"{path}: row {number}", f"'{name}': not UTF-8 text")
        return False
    return True
