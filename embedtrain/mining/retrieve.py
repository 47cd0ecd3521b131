"""Finds the candidates of one source: asks every retriever, fuses their lists, and scores what is in them.

The rows are cut into units, a file each; unit u belongs to process u % world and is made once.
B rows of a unit, L candidates in a fused list, P positives of a row.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedtrain.artifacts import put_in_place
from embedtrain.config.retrievers import Fusion
from embedtrain.mining.fusion import fuse, rank_of_all
from embedtrain.mining.judges import UNIT_ROWS, Found, Inquiry
from embedtrain.mining.tables import Column, Mined, candidates_schema, mined_table
from embedtrain.places import at, wait_for
from embedtrain.show.progress import progress

FUSED = "fused"
TOPS = (1, 10, 50)
TALLY = b"tally"  # in a unit's file: how many rows have their positives among the first, by list


@dataclass(frozen=True, slots=True)
class Units:
    """The files of one source's rows, a unit each."""

    files: list[Path]
    made: int  # by this process
    found: int  # of this process, finished before


def make_units(inquiry: Inquiry, query_rows: np.ndarray, found: Mapping[str, Found], fusion: Fusion) -> Units:
    """Make this process's units that are not there; `query_rows` are the rows' numbers in their source."""
    num_units = -(-len(inquiry.rows) // UNIT_ROWS)
    files = [inquiry.folder / "rows" / f"{unit:06d}.parquet" for unit in range(num_units)]
    own = range(inquiry.processes.rank, num_units, inquiry.processes.world)
    missing = [unit for unit in own if not files[unit].exists()]
    with progress(f"{inquiry.name}: candidates", total=len(missing), unit="unit") as bar:
        for unit in missing:
            at(f"{inquiry.name}: unit {unit}")
            write_unit(files[unit], make_unit(inquiry, query_rows, found, fusion, unit))
            bar.advance()
    return Units(files, len(missing), len(own) - len(missing))


def make_unit(
    inquiry: Inquiry, query_rows: np.ndarray, found: Mapping[str, Found], fusion: Fusion, unit: int
) -> pa.Table:
    """The lines of candidates.parquet for the rows of a unit, and its tally."""
    lists = {name: one.found(unit) for name, one in found.items()}
    ids_BL, ranks_BL = fuse(fusion, list(lists.values()))
    start = unit * UNIT_ROWS
    rows = slice(start, start + len(ids_BL))
    positives = positive_ids(inquiry, rows)
    columns = {name: score(one, start, ids_BL, positives) for name, one in found.items()}
    table = mined_table(inquiry.name, Mined(query_rows[rows], ids_BL, ranks_BL, columns))
    counts = {name: count_tops(ids, positives) for name, ids in (lists | {FUSED: ids_BL}).items()}
    return table.replace_schema_metadata({**table.schema.metadata, TALLY: json.dumps(counts)})


def score(judge: Found, start: int, ids_BL: np.ndarray, positives: Sequence[np.ndarray]) -> Column:
    """What a retriever says of all candidates and positives of the rows from `start` on."""
    positives_BP = np.full((len(positives), max(map(len, positives))), -1, np.int64)
    for number, ids in enumerate(positives):
        positives_BP[number, : len(ids)] = ids
    scores_BP = judge.scores(start, positives_BP).astype(np.float32)
    scores = [line[: len(ids)] for line, ids in zip(scores_BP, positives, strict=True)]
    return Column(judge.scores(start, ids_BL).astype(np.float32), scores)


def positive_ids(inquiry: Inquiry, rows: slice) -> list[np.ndarray]:
    """Document ids of each row's positives, in the row's order."""
    starts = inquiry.rows.positive_starts[rows.start : rows.stop + 1]
    keys = inquiry.rows.keys_M[inquiry.rows.positive_P[starts[0] : starts[-1]]]
    return np.split(inquiry.corpus.ids(keys), starts[1:-1] - starts[0])


def count_tops(ids_BL: np.ndarray, positives: Sequence[np.ndarray]) -> dict[str, int]:
    """Rows all of whose positives are among the first 1, 10 and 50 of a list."""
    ranks = np.array([rank_of_all(*pair) for pair in zip(ids_BL, positives, strict=True)])
    return {str(top): int(((ranks > 0) & (ranks <= top)).sum()) for top in TOPS}


def write_unit(path: Path, table: pa.Table) -> None:
    """A file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    with put_in_place(aside, path):
        pq.write_table(table, aside, compression="zstd")


def read_units(units: Units, columns: Sequence[str], tally: dict[str, Counter[str]]) -> Iterator[pa.Table]:
    """The tables of all processes' units in the order of the rows; adds their counts to `tally`."""
    schema = candidates_schema(columns)
    for path in units.files:
        wait_for([path])
        table = pq.read_table(path)
        for name, counts in json.loads(table.schema.metadata[TALLY]).items():
            tally.setdefault(name, Counter()).update(counts)
        yield table.cast(schema).replace_schema_metadata(schema.metadata)


def shares(counts: Mapping[str, int], num_rows: int, longest: int) -> dict[str, object]:
    """The share of rows by how far down their positives are, as far as the list goes."""
    return {
        f"positive_in_top_{top}": round(counts.get(str(top), 0) / num_rows, 4)
        for top in TOPS
        if top <= longest and num_rows
    }
