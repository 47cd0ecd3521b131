"""Batches of records of parquet files, and what is wrong with those that cannot be read."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.config.errors import UserError
from embedtrain.data.problems import Problems

BATCH_ROWS = 8192


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
