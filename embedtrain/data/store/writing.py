"""Writes a folder of canonical rows: streamed, each text once, whole or not at all. B rows a block."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.artifacts import hash_file, hash_json, mark_done, write_json
from embedtrain.config.errors import UserError
from embedtrain.data.problems import Problems
from embedtrain.data.records import ROWS, TEXTS_FILE
from embedtrain.data.rows import NAMES, NUMBERS, TEXTS, Row, row_fault
from embedtrain.data.store.build import BLOCK_ROWS, PAIRS, Builder, in_blocks
from embedtrain.data.store.folder import ROWS_SCHEMA, TEXTS_SCHEMA
from embedtrain.data.store.view import RowStore

FACTS = "facts.json"
GROUP_ROWS = 8 * BLOCK_ROWS
LISTS = {name: name for name in TEXTS} | {scores: texts for texts, scores in PAIRS}


def write_store(
    folder: Path | str, rows: Iterable[Row], *, facts: Mapping[str, object] | None = None
) -> Path:
    """Write rows as a folder: rows.parquet, texts.parquet, and facts.json with `facts` and the counts.

    Equal rows give equal parquet files. Raises UserError where the folder is there, where a row is unusable
    or where there is none; nothing is left then.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder}: is there already; remove it or give another name")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        store, counts = build_store(usable(rows, folder), aside / "build")
        write_texts(aside / TEXTS_FILE, store)
        write_ids(aside / ROWS, store)
        write_json(aside / FACTS, {**(facts or {}), **counts})
        shutil.rmtree(aside / "build")
        return aside.replace(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def store_rows(rows: Iterable[Row], folder: Path) -> RowStore:
    """A RowStore in a new folder, of rows that are known to be usable."""
    store, facts = build_store(rows, folder)
    mark_done(folder, facts)
    return store


def build_store(rows: Iterable[Row], folder: Path) -> tuple[RowStore, dict[str, int]]:
    """A RowStore in a new folder, and its counts."""
    folder.mkdir(parents=True)
    with closing(Builder(folder)) as builder:
        for block in in_blocks(rows):
            builder.add_rows(block)
    content = hash_json([hash_file(file) for file in sorted(folder.iterdir())])
    return RowStore(folder, content), builder.facts()


def usable(rows: Iterable[Row], folder: Path) -> Iterator[Row]:
    """The rows; after the last one UserError with all that is wrong with them."""
    problems, number = Problems(), 0
    for number, row in enumerate(rows, 1):
        if fault := row_fault(row):
            problems.add(f"{folder}: row {number}", fault)
        else:
            yield row
    problems.require()
    if not number:
        raise UserError(f"{folder}: no rows; expected at least one")


def write_texts(path: Path, store: RowStore) -> None:
    """Keys and texts in the order of their ids."""
    with pq.ParquetWriter(path, TEXTS_SCHEMA, compression="zstd") as writer:
        for start in range(0, store.num_texts, GROUP_ROWS):
            ids = np.arange(start, min(start + GROUP_ROWS, store.num_texts))
            writer.write_batch(pa.record_batch([store.keys_M[ids], store.texts(ids)], schema=TEXTS_SCHEMA))


def write_ids(path: Path, store: RowStore) -> None:
    """The rows with ids in place of texts; columns that no row fills are left out."""
    used = [field for field in ROWS_SCHEMA if fills(store, field.name)]
    schema = pa.schema(used, ROWS_SCHEMA.metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(store), GROUP_ROWS):
            rows = slice(start, min(start + GROUP_ROWS, len(store)))
            columns = [make_column(store, name, rows) for name in schema.names]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def fills(store: RowStore, name: str) -> bool:
    """Whether some row has this."""
    values = store.array(name)
    if name in NAMES:
        return len(store.names[name]) > 0
    return bool(np.isfinite(values).any()) if values.dtype.kind == "f" else len(values) > 0


def make_column(store: RowStore, name: str, rows: slice) -> pa.Array:
    """A column of rows.parquet for some rows."""
    if name in NAMES:
        codes_B = store.array(name)[rows]
        distinct, place_B = np.unique(codes_B[codes_B >= 0], return_inverse=True)
        values = np.full(len(codes_B), None, object)
        values[codes_B >= 0] = np.array(store.names[name].take(distinct), object)[place_B]
        return pa.array(values, pa.string())
    if name not in LISTS:
        values = store.array(name)[rows]
        return pa.array(values, mask=np.isnan(values) if name == "score" else None)
    starts = store.array(f"{LISTS[name]}_starts")[rows.start : rows.stop + 1]
    values, lengths_B = store.array(name)[starts[0] : starts[-1]], np.diff(starts)
    none_B = np.zeros(len(lengths_B), bool)
    if name in NUMBERS:
        none_B[:] = True
        none_B[np.repeat(np.arange(len(lengths_B)), lengths_B)] = np.isnan(values)
    offsets = pa.array(starts - starts[0], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values), mask=pa.array(none_B))
