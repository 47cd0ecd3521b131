"""The files between mine and select: candidates.parquet (ids and scores, no texts) and corpus.parquet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.config.errors import UserError

CANDIDATES = "candidates.parquet"
CORPUS = "corpus.parquet"
VERSION = {b"embedtrain.candidates": b"1"}

CANDIDATES_SCHEMA = pa.schema(
    [
        ("query_row", pa.int64()),  # number of the row in the source's file
        ("source", pa.string()),
        ("ids", pa.list_(pa.int32())),  # documents of the same source in corpus.parquet, best first
        ("scores", pa.list_(pa.float32())),
        ("positive_score", pa.float32()),  # the lowest among the row's positives
        ("positive_rank", pa.int32()),  # that positive's place in ids, from 1; 0 where it is not there
        ("positive_scores", pa.list_(pa.float32())),  # of each positive of the row, in order
    ],
    metadata=VERSION,
)
CORPUS_SCHEMA = pa.schema(
    [("source", pa.string()), ("id", pa.int32()), ("key", pa.int64()), ("text", pa.string())],
    metadata=VERSION,
)


@dataclass(frozen=True, slots=True)
class Mined:
    """The candidates of one source. Q mined rows, K candidates a row.

    `query_row_Q`, `ids_QK` and `positive_rank_Q` are int64, `score_QK` and `positive_score_Q` float32;
    `positive_scores` has one list a row.
    """

    query_row_Q: np.ndarray
    ids_QK: np.ndarray
    score_QK: np.ndarray
    positive_score_Q: np.ndarray
    positive_rank_Q: np.ndarray
    positive_scores: list[list[float]]


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A parquet file written aside in pieces and put in its place when all of it is there."""
    aside = path.with_name(f".{path.name}.partial")
    with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        yield writer
    aside.replace(path)


def mined_table(source: str, mined: Mined) -> pa.Table:
    """The lines of candidates.parquet for some rows of a source."""
    columns = [
        pa.array(mined.query_row_Q, pa.int64()),
        pa.array([source] * len(mined.query_row_Q), pa.string()),
        _lists(mined.ids_QK, pa.int32()),
        _lists(mined.score_QK, pa.float32()),
        pa.array(mined.positive_score_Q.astype(np.float32)),
        pa.array(mined.positive_rank_Q.astype(np.int32)),
        pa.array(mined.positive_scores, pa.list_(pa.float32())),
    ]
    return pa.Table.from_arrays(columns, schema=CANDIDATES_SCHEMA)


def corpus_table(source: str, keys: np.ndarray, texts: list[str]) -> pa.Table:
    """The lines of corpus.parquet for a source."""
    columns = [
        pa.array([source] * len(texts), pa.string()),
        pa.array(np.arange(len(texts), dtype=np.int32)),
        pa.array(keys, pa.int64()),
        pa.array(texts, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=CORPUS_SCHEMA)


def list_sources(folder: Path) -> list[str]:
    """The sources that were mined, in the order of the file."""
    sources = pq.read_table(folder / CORPUS, columns=["source"])["source"]
    return [str(name) for name in sources.unique().to_pylist()]


def read_mined(folder: Path, source: str) -> Mined:
    """The candidates of one source; every row of a source has the same number of them."""
    path = folder / CANDIDATES
    table = _read(path, CANDIDATES_SCHEMA, source)
    ids = [table[name].combine_chunks() for name in ("ids", "scores")]
    lengths = ids[0].value_lengths().to_numpy(zero_copy_only=False)
    if len(set(lengths.tolist())) > 1:
        raise UserError(f"{path}: rows of source '{source}' have different numbers of candidates")
    shape = (len(table), int(lengths[0]) if len(lengths) else 0)
    return Mined(
        query_row_Q=table["query_row"].to_numpy(),
        ids_QK=ids[0].flatten().to_numpy().astype(np.int64).reshape(shape),
        score_QK=ids[1].flatten().to_numpy().reshape(shape),
        positive_score_Q=table["positive_score"].to_numpy(),
        positive_rank_Q=table["positive_rank"].to_numpy().astype(np.int64),
        positive_scores=table["positive_scores"].to_pylist(),
    )


def read_corpus(folder: Path, source: str) -> tuple[np.ndarray, list[str]]:
    """Keys and texts of one source's documents, by id."""
    table = _read(folder / CORPUS, CORPUS_SCHEMA, source).sort_by("id")
    return table["key"].to_numpy(), table["text"].to_pylist()


def _read(path: Path, schema: pa.Schema, source: str) -> pa.Table:
    table = pq.read_table(path, filters=[("source", "=", source)])
    if not table.schema.equals(schema):
        raise UserError(f"{path}: columns are {table.schema.names}, expected {schema.names}")
    return table


def _lists(matrix: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """A matrix as a column of lists, without a Python object for each number."""
    rows, width = matrix.shape
    values = pa.array(np.ascontiguousarray(matrix).ravel()).cast(kind, safe=False)
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * width), values)
