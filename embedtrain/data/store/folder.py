"""Canonical rows of version 2: a folder with rows.parquet (ids) and texts.parquet (each text once).

The id of a text is the number of its line in texts.parquet, from 0. B rows a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.config.errors import shorten
from embedtrain.data.parquet import open_parquet, read_batches
from embedtrain.data.problems import Problems
from embedtrain.data.records import ROWS, TEXTS_FILE
from embedtrain.data.rows import FOLDER_VERSION, NAMES, NUMBERS, TEXTS, VERSION_KEY, fits, read_version
from embedtrain.data.store.build import PAIRS, Block, Builder
from embedtrain.show.progress import Bar

METADATA = {VERSION_KEY: str(FOLDER_VERSION)}
ROWS_SCHEMA = pa.schema(
    [("query", pa.int64())]
    + [(name, pa.list_(pa.int64())) for name in TEXTS]
    + [(name, pa.list_(pa.float64())) for name in NUMBERS]
    + [("score", pa.float64())]
    + [(name, pa.string()) for name in NAMES],
    metadata=METADATA,
)
TEXTS_SCHEMA = pa.schema([("key", pa.int64()), ("text", pa.string())], metadata=METADATA)
NOTHING = -(2**63)  # stands for a null id


def add_folder(folder: Path, builder: Builder, problems: Problems, bar: Bar) -> None:
    """Append the rows of a folder; those of blocks with faults are left out."""
    rows, texts = folder / ROWS, folder / TEXTS_FILE
    row_file, text_file = open_table(rows, ROWS_SCHEMA, 2), open_table(texts, TEXTS_SCHEMA, 2)
    for start, batch in read_batches(text_file, texts, problems):
        add_texts(batch, start, texts, builder, problems)
        bar.advance(len(batch))
    if problems:
        return  # ids could point anywhere
    for start, batch in read_batches(row_file, rows, problems):
        block, before = read_block(batch, builder), problems.count
        for number, text in sorted(block_faults(block, batch, len(builder.texts))):
            problems.add(f"{rows}: row {start + number + 1}", text)
        if problems.count == before:
            builder.add_block(block)
        bar.advance(len(batch))


def open_table(path: Path, schema: pa.Schema, num_required: int) -> pq.ParquetFile:
    """A parquet file with these columns, the first ones all there."""
    file, problems = open_parquet(path), Problems()
    read_version(file, path)
    given = file.schema_arrow
    for field in given:
        if field.name not in schema.names:
            problems.add(f"{path}: column", f"'{field.name}': unknown; known: {', '.join(schema.names)}")
        elif not fits(field.type, schema.field(field.name).type):
            expected = schema.field(field.name).type
            problems.add(f"{path}: column '{field.name}'", f"found {field.type}, expected {expected}")
    for name in schema.names[:num_required]:
        if name not in given.names:
            problems.add(f"{path}: column '{name}'", f"is missing; expected {schema.field(name).type}")
    problems.require()
    return file


def add_texts(batch: pa.RecordBatch, start: int, path: Path, builder: Builder, problems: Problems) -> None:
    """Append texts; each must be there once, with the key that it has."""
    texts, given = batch["text"].fill_null("").to_pylist(), batch["key"].fill_null(0).to_numpy()
    keys, before = builder.texts.keys_of(texts), len(builder.texts)
    numbers = builder.texts.add(texts, keys)
    newest = np.maximum.accumulate(np.concatenate([[before - 1], numbers]))[:-1]
    faults = [(place, "'text': found blank text") for place, text in enumerate(texts) if not text.strip()]
    faults += [
        (place, f"'text': {shorten(texts[place])} stands twice; expected each text once")
        for place in np.flatnonzero(numbers <= newest).tolist()
    ]
    faults += [
        (place, f"'key': found {given[place]}, expected {keys[place]}, the key of its text")
        for place in np.flatnonzero(given != keys).tolist()
    ]
    for place, text in sorted(faults):
        problems.add(f"{path}: row {start + place + 1}", text)


def read_block(batch: pa.RecordBatch, builder: Builder) -> Block:
    """The rows of a batch, not yet checked."""
    ids = {name: Lists.read(batch, name, NOTHING) for name in TEXTS}
    scores = {name: Lists.read(batch, name, np.inf) for name in NUMBERS}
    return Block(
        query_B=single(batch, "query", pa.int64(), NOTHING),
        ids={name: lists.values for name, lists in ids.items()},
        lengths={name: lists.length_B for name, lists in ids.items()},
        scores={number: scores[number].spread(ids[text].length_B) for text, number in PAIRS},
        score_B=single(batch, "score", pa.float64(), np.nan),
        codes={name: builder.encode(name, column(batch, name, pa.string()).to_pylist()) for name in NAMES},
    )


def column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    """A column of a batch as this type; nulls where the batch has none."""
    return batch[name].cast(kind) if name in batch.schema.names else pa.nulls(len(batch), kind)


def single(batch: pa.RecordBatch, name: str, kind: pa.DataType, nothing: float) -> np.ndarray:
    """A column with one number a row."""
    return np.asarray(column(batch, name, kind).fill_null(nothing).to_numpy(zero_copy_only=False))


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists: values end to end, and for each of B rows how many, and whether there is a list."""

    values: np.ndarray
    length_B: np.ndarray
    given_B: np.ndarray

    @classmethod
    def read(cls, batch: pa.RecordBatch, name: str, nothing: float) -> "Lists":
        """Read it from a batch; `nothing` stands for a null in a list."""
        array = column(batch, name, ROWS_SCHEMA.field(name).type)
        values = array.flatten().fill_null(nothing).to_numpy(zero_copy_only=False)
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(values, lengths, array.is_valid().to_numpy(zero_copy_only=False))

    def spread(self, length_B: np.ndarray) -> np.ndarray:
        """The values, NaN for rows without a list; where lengths differ, what does not fit is left out."""
        spread = np.full(int(length_B.sum()), np.nan)
        fits_B = self.given_B & (self.length_B == length_B)
        spread[np.repeat(fits_B, length_B)] = self.values[np.repeat(fits_B, self.length_B)]
        return spread


def block_faults(block: Block, batch: pa.RecordBatch, num_texts: int) -> Iterator[tuple[int, str]]:
    """(row of the batch, what makes it unusable)."""
    count = f"expected 0 to {num_texts - 1:,}, as texts.parquet has {num_texts:,} texts"
    row_B = np.arange(len(batch))
    owners = {name: np.repeat(row_B, lengths) for name, lengths in block.lengths.items()}
    for name, ids, owner in [("query", block.query_B, row_B)] + [(n, block.ids[n], owners[n]) for n in TEXTS]:
        for place in np.flatnonzero((ids < 0) | (ids >= num_texts)).tolist():
            found = "nothing" if ids[place] == NOTHING else f"text id {ids[place]}"
            yield int(owner[place]), f"'{name}': found {found}, {count}"
    for row in np.flatnonzero(block.lengths["positives"] == 0).tolist():
        yield row, "'positives': found an empty list, expected at least one text id"
    tags = [owners[name] * (num_texts + 2) + np.clip(block.ids[name], -1, num_texts) for name in TEXTS]
    known = np.isin(tags[1], tags[0]) & (block.ids["negatives"] >= 0) & (block.ids["negatives"] < num_texts)
    for row in np.unique(owners["negatives"][known]).tolist():
        yield row, "'negatives': one of them is also a positive of this row"
    for text, name in PAIRS:
        lists = Lists.read(batch, name, np.inf)
        length_B = block.lengths[text]
        for row in np.flatnonzero(lists.given_B & (lists.length_B != length_B)).tolist():
            yield row, f"'{name}': found {lists.length_B[row]} scores for {length_B[row]} {text}"
        owner = np.repeat(row_B, lists.length_B)
        for row in np.unique(owner[~np.isfinite(lists.values)]).tolist():
            yield row, f"'{name}': found one that is no finite number"
    for row in np.flatnonzero(np.isinf(block.score_B)).tolist():
        yield row, "'score': found an infinite number, expected a finite one"
