"""The files between mine, score and select: candidates.parquet, scores.parquet and corpus.parquet.

candidates.parquet has a line a mined row: `query_row`, its number in the rows; `source`; `ids`, documents of
the source in corpus.parquet, best first; their `ranks`; and for each retriever C the lists `scores.C`, beside
the ids, and `positive_scores.C`, beside the row's positives, NaN where it has no score. scores.parquet has,
line for line beside it, `query_row`, `source` and such lists of each teacher.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.artifacts import put_in_place
from embedtrain.config.errors import UserError

CANDIDATES = "candidates.parquet"
SCORES = "scores.parquet"
CORPUS = "corpus.parquet"
VERSION_KEY, VERSION_HERE = b"embedtrain.candidates", b"2"
VERSION = {VERSION_KEY: VERSION_HERE}
SCORES_OF, POSITIVE_SCORES_OF = "scores.", "positive_scores."

LINE = [("query_row", pa.int64()), ("source", pa.string())]
LISTS = [("ids", pa.list_(pa.int32())), ("ranks", pa.list_(pa.int32()))]
CORPUS_SCHEMA = pa.schema(
    [("source", pa.string()), ("id", pa.int32()), ("key", pa.int64()), ("text", pa.string())],
    metadata=VERSION,
)


@dataclass(frozen=True, slots=True)
class Column:
    """What one retriever or teacher says of a source's candidates and positives; NaN where it says nothing.

    `score_QK` is float32; `positive_scores` has one float32 array a row, beside the row's positives.
    """

    score_QK: np.ndarray
    positive_scores: list[np.ndarray]


@dataclass(frozen=True, slots=True)
class Mined:
    """The candidates of one source: Q mined rows, at most K candidates a row, best first.

    `query_row_Q` int64; `ids_QK` int64, -1 where a row has fewer; `ranks_QK` int32 from 1, 0 there.
    """

    query_row_Q: np.ndarray
    ids_QK: np.ndarray
    ranks_QK: np.ndarray
    columns: dict[str, Column]

    @property
    def present_QK(self) -> np.ndarray:
        """Where there is a candidate."""
        return self.ids_QK >= 0


def candidates_schema(columns: Iterable[str]) -> pa.Schema:
    """Columns of candidates.parquet, for retrievers of these names."""
    return pa.schema([*LINE, *LISTS, *_fields(columns)], metadata=VERSION)


def scores_schema(columns: Iterable[str]) -> pa.Schema:
    """Columns of scores.parquet, for teachers and ensembles of these names."""
    return pa.schema([*LINE, *_fields(columns)], metadata=VERSION)


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A parquet file written aside in pieces and put in its place when all of it is there."""
    aside = path.with_name(f".{path.name}.partial")
    with put_in_place(aside, path), pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        yield writer


def mined_table(source: str, mined: Mined) -> pa.Table:
    """The lines of candidates.parquet for some rows of a source."""
    present_QK = mined.present_QK
    arrays = [
        *_line(source, mined.query_row_Q),
        _lists(mined.ids_QK, present_QK, pa.int32()),
        _lists(mined.ranks_QK, present_QK, pa.int32()),
        *_column_lists(mined.columns, present_QK),
    ]
    return pa.Table.from_arrays(arrays, schema=candidates_schema(mined.columns))


def scores_table(
    source: str, query_row_Q: np.ndarray, present_QK: np.ndarray, columns: Mapping[str, Column]
) -> pa.Table:
    """The lines of scores.parquet for some rows of a source; `present_QK` is that of the rows' candidates."""
    arrays = [*_line(source, query_row_Q), *_column_lists(columns, present_QK)]
    return pa.Table.from_arrays(arrays, schema=scores_schema(columns))


def corpus_table(source: str, keys: np.ndarray, texts: Sequence[str], first: int = 0) -> pa.Table:
    """The lines of corpus.parquet for some documents of a source, numbered from `first`."""
    columns = [
        pa.array([source] * len(texts), pa.string()),
        pa.array(np.arange(first, first + len(texts), dtype=np.int32)),
        pa.array(keys, pa.int64()),
        pa.array(texts, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=CORPUS_SCHEMA)


def list_sources(folder: Path) -> list[str]:
    """The sources that were mined, in the order of the file."""
    batches = pq.ParquetFile(_checked(folder / CORPUS)).iter_batches(columns=["source"])
    return list(dict.fromkeys(name for batch in batches for name in batch["source"].unique().to_pylist()))


def read_mined(folder: Path, source: str) -> Mined:
    """The candidates of one source, with the scores of all retrievers."""
    table = _read(folder / CANDIDATES, source)
    return Mined(
        query_row_Q=table["query_row"].to_numpy(),
        ids_QK=_matrix(table["ids"], -1).astype(np.int64),
        ranks_QK=_matrix(table["ranks"], 0),
        columns=_columns(table),
    )


def read_columns(folder: Path, source: str, mined: Mined) -> dict[str, Column]:
    """What a score stage wrote of one source, by teacher and ensemble.

    Raises UserError where it is not of these mined candidates.
    """
    path = folder / SCORES
    table = _read(path, source)
    columns = _columns(table)
    same = np.array_equal(table["query_row"].to_numpy(), mined.query_row_Q)
    if not same or any(column.score_QK.shape != mined.ids_QK.shape for column in columns.values()):
        raise UserError(f"{path}: not the scores of these candidates of source '{source}'; score them again")
    return columns


def read_corpus(folder: Path, source: str) -> tuple[np.ndarray, list[str]]:
    """keys_N int64 and texts of one source's documents, by id."""
    table = _read(folder / CORPUS, source).sort_by("id")
    return table["key"].to_numpy(), table["text"].to_pylist()


def _checked(path: Path) -> Path:
    """The path of a table of this version."""
    found = (pq.read_schema(path).metadata or {}).get(VERSION_KEY, b"nothing")
    if found != VERSION_HERE:
        told = f"found version {found.decode()}, expected {VERSION_HERE.decode()}"
        raise UserError(f"{path}: {told}; run its stage again")
    return path


def _read(path: Path, source: str) -> pa.Table:
    return pq.read_table(_checked(path), filters=[("source", "=", source)]).combine_chunks()


def _fields(columns: Iterable[str]) -> list[tuple[str, pa.DataType]]:
    kind = pa.list_(pa.float32())
    return [(f"{lead}{name}", kind) for name in columns for lead in (SCORES_OF, POSITIVE_SCORES_OF)]


def _line(source: str, query_row_Q: np.ndarray) -> list[pa.Array]:
    return [pa.array(query_row_Q, pa.int64()), pa.array([source] * len(query_row_Q), pa.string())]


def _column_lists(columns: Mapping[str, Column], present_QK: np.ndarray) -> Iterator[pa.Array]:
    for column in columns.values():
        yield _lists(column.score_QK, present_QK, pa.float32())
        lengths = np.array([len(scores) for scores in column.positive_scores], np.int64)
        yield _joined(np.concatenate([[], *column.positive_scores]), lengths, pa.float32())


def _lists(matrix: np.ndarray, present: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    """Where candidates are present, as a column of lists, without a Python object for each number."""
    return _joined(matrix[present], present.sum(axis=1), kind)


def _joined(values: np.ndarray, lengths: np.ndarray, kind: pa.DataType) -> pa.ListArray:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(starts), pa.array(values).cast(kind, safe=False))


def _split(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values end to end, and the length of each list."""
    lists = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    return lists.flatten().to_numpy(zero_copy_only=False), lengths


def _matrix(column: pa.ChunkedArray, nothing: float) -> np.ndarray:
    """Lists as lines of a matrix, `nothing` where a list is shorter than the longest."""
    values, lengths = _split(column)
    matrix = np.full((len(lengths), int(lengths.max(initial=0))), nothing, values.dtype)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = values
    return matrix


def _columns(table: pa.Table) -> dict[str, Column]:
    names = [name.removeprefix(SCORES_OF) for name in table.column_names if name.startswith(SCORES_OF)]
    return {name: _column(table, name) for name in names}


def _column(table: pa.Table, name: str) -> Column:
    values, lengths = _split(table[f"{POSITIVE_SCORES_OF}{name}"])
    positives = np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []
    return Column(_matrix(table[f"{SCORES_OF}{name}"], np.nan), list(positives))
