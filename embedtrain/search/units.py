"""Long searches cut into units: a file each, shared by processes, kept over kills.

A unit is a block of queries against a part of the documents. The cut depends on the sizes alone, never on
who works or on what is finished, and units merge by the total order of `best`: the result is the same, bit
for bit, on any number of processes and after any kill. Memory holds one block of queries, however many there
are.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from embedtrain.artifacts import read_json, wait_for, write_atomic, write_json
from embedtrain.search.bm25 import BM25Index
from embedtrain.search.exact import Ranking, best, check, device_kind, longest_vector, search_block
from embedtrain.show.progress import progress

QUERY_BLOCK = 1024
QUERY_BLOCKS = {"cuda": 2**14}  # where documents travel to the device for each block
MIN_UNITS = (
    32  # where blocks of queries are fewer, documents are cut too: to share, and to lose little by a kill
)
MIN_PART = 2**17  # documents worth a unit
GRID = "grid.json"


@dataclass(frozen=True, slots=True)
class Grid:
    """How a search is cut."""

    num_queries: int
    num_documents: int
    k: int  # at most num_documents
    query_block: int
    document_block: int

    @property
    def num_blocks(self) -> int:
        """Blocks of queries."""
        return -(-self.num_queries // self.query_block)

    @property
    def num_parts(self) -> int:
        """Parts of the documents."""
        return -(-self.num_documents // self.document_block)

    def queries(self, block: int) -> slice:
        """The queries of a block."""
        return slice(block * self.query_block, min(self.num_queries, (block + 1) * self.query_block))

    def block_size(self, block: int) -> int:
        """Queries of a block: all have as many but the last."""
        return self.queries(block).stop - self.queries(block).start

    def documents(self, part: int) -> slice:
        """The documents of a part."""
        return slice(part * self.document_block, min(self.num_documents, (part + 1) * self.document_block))

    def units(self) -> list[tuple[int, int]]:
        """(block, part) of every unit, in their order: unit u belongs to rank u % world."""
        return list(product(range(self.num_blocks), range(self.num_parts))) if self.k else []


@dataclass(frozen=True, slots=True)
class Rankings:
    """The rankings of all queries, a block at a time, from the files of the units; any process may read."""

    folder: Path
    grid: Grid
    made: int  # units this process made
    found: int  # units of this process that were finished before
    recall: float | None = None  # share of the true top k found, by a sample; absent where search is exact

    @property
    def num_queries(self) -> int:
        """All queries."""
        return self.grid.num_queries

    @property
    def query_block(self) -> int:
        """Queries of a block; the last may have fewer."""
        return self.grid.query_block

    @property
    def num_blocks(self) -> int:
        """Blocks of queries."""
        return self.grid.num_blocks

    @property
    def k(self) -> int:
        """Documents a query."""
        return self.grid.k

    def block(self, number: int) -> Ranking:
        """The rankings of queries number * query_block and following; waits for other processes' units."""
        if self.k == 0:
            return empty_ranking(self.grid.block_size(number))
        files = [unit_file(self.folder, number, part) for part in range(self.grid.num_parts)]
        wait_for(files)
        ids, scores = zip(*map(_read_unit, files), strict=True)
        return best(np.concatenate(ids, axis=1), np.concatenate(scores, axis=1), self.k)

    def __iter__(self) -> Iterator[Ranking]:
        """Every block, in order."""
        return map(self.block, range(self.num_blocks))


def search_units(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    folder: Path,
    *,
    rank: int = 0,
    world: int = 1,
    query_block: int | None = None,
    document_block: int | None = None,
    device: str = "cpu",
    label: str = "search",
) -> Rankings:
    """`exact.search` in units; makes those of this rank that `folder` lacks, and waits for nobody.

    Either array may be a memory map. Without sizes of blocks the numbers of queries and documents give them.
    The folder belongs to these vectors; ValueError where it holds units of other sizes.
    """
    check(queries, documents, k)
    query_block = query_block or QUERY_BLOCKS.get(device_kind(device), QUERY_BLOCK)
    document_block = document_block or part_size(-(-len(queries) // query_block), len(documents))
    grid = Grid(len(queries), len(documents), min(k, len(documents)), query_block, document_block)

    @cache
    def longest(part: int) -> float:
        return longest_vector(documents[grid.documents(part)])

    def find(block: int, part: int) -> Ranking:
        chosen = documents[grid.documents(part)]
        width = min(grid.k, len(chosen))
        ids, scores = search_block(queries[grid.queries(block)], chosen, width, longest(part), device=device)
        return ids + grid.documents(part).start, scores

    return make_units(find, grid, folder, rank, world, label)


def bm25_units(
    index: BM25Index,
    queries: Sequence[str],
    k: int,
    folder: Path,
    *,
    num_searched: int | None = None,
    rank: int = 0,
    world: int = 1,
    query_block: int = QUERY_BLOCK,
    label: str = "search",
) -> Rankings:
    """`BM25Index.search` in units; only ids below `num_searched` are found."""
    num_documents = index.num_documents if num_searched is None else num_searched
    grid = Grid(len(queries), num_documents, min(k, num_documents), query_block, max(1, num_documents))

    def find(block: int, part: int) -> Ranking:
        rows = grid.queries(block)
        return index.search([queries[number] for number in range(rows.start, rows.stop)], k, num_documents)

    return make_units(find, grid, folder, rank, world, label)


def make_units(
    find: Callable[[int, int], Ranking],
    grid: Grid,
    folder: Path,
    rank: int,
    world: int,
    label: str,
    recall: float | None = None,
) -> Rankings:
    """Make the units of this rank that are not there; `find` ranks a block of queries over a part."""
    _claim(folder, grid)
    own = grid.units()[rank::world]
    missing = [unit for unit in own if not unit_file(folder, *unit).exists()]
    with progress(label, total=sum(grid.block_size(block) for block, _ in missing), unit="row") as bar:
        for block, part in missing:
            _write_unit(unit_file(folder, block, part), find(block, part))
            bar.advance(grid.block_size(block))
    return Rankings(folder, grid, len(missing), len(own) - len(missing), recall)


def part_size(num_blocks: int, num_documents: int) -> int:
    """Documents of a part: as few parts as make enough units, since each part's ranking lies on the disk."""
    parts = min(-(-MIN_UNITS // max(1, num_blocks)), max(1, num_documents // MIN_PART))
    return max(1, -(-num_documents // parts))


def unit_file(folder: Path, block: int, part: int) -> Path:
    """The file of a unit."""
    return folder / f"{block:06d}-{part:04d}.npz"


def empty_ranking(num_queries: int) -> Ranking:
    """No document for each query."""
    return np.empty((num_queries, 0), np.int64), np.empty((num_queries, 0), np.float64)


def _claim(folder: Path, grid: Grid) -> None:
    """Write the grid down, or see that the folder is of the same."""
    sizes = asdict(grid)
    path = folder / GRID
    if not path.exists():
        write_json(path, sizes)
    elif (known := read_json(path)) != sizes:
        raise ValueError(f"{folder} holds units of another search: {known}, expected {sizes}")


def _write_unit(path: Path, ranking: Ranking) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ids=ranking[0], scores=ranking[1])
    write_atomic(path, buffer.getvalue())


def _read_unit(path: Path) -> Ranking:
    with np.load(path) as unit:
        return unit["ids"], unit["scores"]
