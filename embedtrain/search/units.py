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

from embedtrain.artifacts import read_json, write_atomic, write_json
from embedtrain.places import at, wait_for
from embedtrain.search.bm25 import BM25Index
from embedtrain.search.exact import Ranking, best, check, device_kind, longest_vector, search_block
from embedtrain.show.progress import progress

QUERY_BLOCK = 1024
BLOCKS_A_PASS = {"cuda": 16}  # on a device that documents must travel to, for which they do so once
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

    def numbers(self, block: int) -> np.ndarray:
        """The queries of a block; all have as many but the last."""
        return np.arange(block * self.query_block, min(self.num_queries, (block + 1) * self.query_block))

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
            return empty_ranking(len(self.grid.numbers(number)))
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
    query_block: int = QUERY_BLOCK,
    document_block: int | None = None,
    device: str = "cpu",
    label: str = "search",
) -> Rankings:
    """`exact.search` in units; makes those of this rank that `folder` lacks, and waits for nobody.

    Either array may be a memory map. Without a `document_block` the sizes give it. The folder belongs to
    these vectors; ValueError where it holds units of other sizes.
    """
    check(queries, documents, k)
    document_block = document_block or part_size(-(-len(queries) // query_block), len(documents))
    grid = Grid(len(queries), len(documents), min(k, len(documents)), query_block, document_block)

    @cache
    def longest(part: int) -> float:
        return longest_vector(documents[grid.documents(part)])

    def find(numbers: np.ndarray, part: int) -> Ranking:
        chosen = documents[grid.documents(part)]
        width = min(grid.k, len(chosen))
        ids, scores = search_block(queries[numbers], chosen, width, longest(part), device=device)
        return ids + grid.documents(part).start, scores

    return make_units(find, grid, folder, rank, world, label, BLOCKS_A_PASS.get(device_kind(device), 1))


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

    def find(numbers: np.ndarray, part: int) -> Ranking:
        return index.search([queries[number] for number in numbers.tolist()], k, num_documents)

    return make_units(find, grid, folder, rank, world, label)


def make_units(
    find: Callable[[np.ndarray, int], Ranking],
    grid: Grid,
    folder: Path,
    rank: int,
    world: int,
    label: str,
    blocks_a_pass: int = 1,
) -> Rankings:
    """Make the units of this rank that are not there; `find` ranks queries, by number, over a part."""
    _claim(folder, grid)
    own = grid.units()[rank::world]
    missing = [unit for unit in own if not unit_file(folder, *unit).exists()]
    with progress(label, total=sum(len(grid.numbers(block)) for block, _ in missing), unit="row") as bar:
        for part, blocks in _passes(missing, blocks_a_pass):
            at(f"{label}: from block {blocks[0]}, part {part}")
            numbers = [grid.numbers(block) for block in blocks]
            ids, scores = find(np.concatenate(numbers), part)
            ends = np.cumsum([len(one) for one in numbers])[:-1]
            rankings = zip(np.split(ids, ends), np.split(scores, ends), strict=True)
            for block, ranking in zip(blocks, rankings, strict=True):
                _write_unit(unit_file(folder, block, part), ranking)
            bar.advance(len(ids))
    return Rankings(folder, grid, len(missing), len(own) - len(missing))


def _passes(units: Sequence[tuple[int, int]], blocks: int) -> Iterator[tuple[int, list[int]]]:
    """A part, and at most so many blocks of the units that search it."""
    by_part: dict[int, list[int]] = {}
    for block, part in units:
        by_part.setdefault(part, []).append(block)
    for part, found in by_part.items():
        for start in range(0, len(found), blocks):
            yield part, found[start : start + blocks]


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
