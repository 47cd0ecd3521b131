"""Raw records of files of rows: lines of JSON, packed or not; `parquet.py` reads parquet, with pyarrow."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from embedtrain.config.errors import UserError, found, near_file
from embedtrain.data.problems import Problems

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
ROWS, TEXTS_FILE = FILES = ("rows.parquet", "texts.parquet")  # of a folder of rows
PACKED = {".gz": "gzip", ".zst": "zstd"}
BLOCK = 1 << 20  # bytes
CANNOT_UNPACK = (OSError, EOFError, zlib.error)


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


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked."""
    if path.suffix == ".zst":
        import pyarrow as pa  # here, for `check` reads lines without it

        with pa.input_stream(str(path), compression="zstd", buffer_size=BLOCK) as stream:
            yield io.BufferedReader(stream, BLOCK)  # type: ignore[arg-type]
        return
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield cast(IO[bytes], file)


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """(number from 1, line with its end) of each line; a line that is not UTF-8 is a problem and left out."""
    number = 0
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    problems.add(f"{path}:{number}", f"not UTF-8 text (byte {error.start + 1} of the line)")
    except CANNOT_UNPACK as error:
        if path.suffix not in PACKED:
            raise
        problems.add(f"{path}:{number + 1}", f"broken {PACKED[path.suffix]} file: {error}")


def read_objects(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, JSON object) of each line; blank lines are passed over."""
    for number, line in read_lines(path, problems):
        if line.strip() and (value := parse_object(line.rstrip(), f"{path}:{number}", problems)) is not None:
            yield f"{path}:{number}", value


def parse_object(line: str, place: str, problems: Problems) -> dict[str, Any] | None:
    """The JSON object of a line; None, and a problem, where it is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        problems.add(place, f"broken JSON at column {error.colno}: {error.msg}")
        return None
    if isinstance(value, dict):
        return value
    problems.add(place, f"found {found(value)}, expected a JSON object with keys")
    return None
