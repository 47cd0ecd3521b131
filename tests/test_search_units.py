"""search/units.py: the same bytes on any number of processes, after kills, in flat memory."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from embedtrain.search import BM25Index, bm25_units, search, search_units, units

ROOT = Path(__file__).parents[1]
WORKER = """
import sys, numpy as np
from pathlib import Path
from embedtrain.search import search_units
folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
queries, documents = (np.load(folder / name, mmap_mode="r") for name in ("queries.npy", "documents.npy"))
out = folder / f"world{world}"
found = search_units(queries, documents, 20, out / "units", rank=rank, world=world, query_block=16,
                     document_block=700)
if rank == 0:
    ids, scores = zip(*found)
    np.save(out / "ids.npy", np.concatenate(ids))
    np.save(out / "scores.npy", np.concatenate(scores))
"""


def vectors(seed: int, num: int, dim: int = 24) -> np.ndarray:
    """Rounded, so that some scores tie."""
    return np.random.default_rng(seed).standard_normal((num, dim)).round(1).astype(np.float32)


def whole(rankings: units.Rankings) -> tuple[np.ndarray, np.ndarray]:
    ids, scores = zip(*rankings, strict=True)
    return np.concatenate(ids), np.concatenate(scores)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    queries, documents = vectors(0, 75), vectors(1, 2000)
    np.save(tmp_path / "queries.npy", queries)
    np.save(tmp_path / "documents.npy", documents)
    processes = []
    for world in (1, 2, 4):
        (tmp_path / f"world{world}").mkdir()
        for rank in range(world):
            run = [sys.executable, "-c", WORKER, tmp_path, str(rank), str(world)]
            processes.append(subprocess.Popen(run, cwd=ROOT))
    assert [process.wait(timeout=300) for process in processes] == [0] * 7
    assert len(files(tmp_path / "world1" / "units")) == 5 * 3 + 1
    one = tmp_path / "world1"
    for name in ("ids.npy", "scores.npy", "units"):
        for world in ("world2", "world4"):
            same = (one / name, tmp_path / world / name)
            read = files if name == "units" else Path.read_bytes
            assert read(same[0]) == read(same[1])
    exact = search(queries, documents, 20)
    np.testing.assert_array_equal(np.load(one / "ids.npy"), exact[0])
    np.testing.assert_array_equal(np.load(one / "scores.npy"), exact[1])


def test_finished_units_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = vectors(2, 40), vectors(3, 300)
    sizes = {"query_block": 8, "document_block": 100}
    reference = search_units(queries, documents, 5, tmp_path / "a", **sizes)
    assert (reference.made, reference.found, reference.num_blocks, reference.k) == (15, 0, 5, 5)

    made = []
    write = units._write_unit

    def write_or_die(path: Path, ranking) -> None:
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(path)
        write(path, ranking)

    with monkeypatch.context() as patch:
        patch.setattr(units, "_write_unit", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            search_units(queries, documents, 5, tmp_path / "b", **sizes)
    resumed = search_units(queries, documents, 5, tmp_path / "b", **sizes)
    assert (resumed.made, resumed.found) == (8, 7)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    again = search_units(queries, documents, 5, tmp_path / "b", **sizes)
    assert (again.made, again.found) == (0, 15)
    np.testing.assert_array_equal(whole(again)[0], search(queries, documents, 5)[0])


@pytest.mark.parametrize(
    ("num_queries", "num_documents", "k"), [(0, 9, 3), (9, 0, 3), (9, 5, 8), (1, 101, 101)]
)
def test_edges(tmp_path: Path, num_queries: int, num_documents: int, k: int) -> None:
    queries, documents = vectors(4, num_queries), vectors(5, num_documents)
    found = search_units(queries, documents, k, tmp_path, query_block=4, document_block=2)
    ids, scores = search(queries, documents, k)
    if num_queries == 0:
        assert list(found) == []
        return
    np.testing.assert_array_equal(whole(found)[0], ids)
    np.testing.assert_array_equal(whole(found)[1], scores)


@pytest.mark.parametrize(
    ("num_queries", "num_documents", "blocks", "parts"),
    [
        (1_000, 50_000, 1, 1),  # half a second: not worth a cut
        (1_000, 10_000_000, 1, 32),
        (5_000, 600_000, 5, 4),
        (1_000_000, 10_000_000, 977, 1),  # enough units: no part's rankings are kept beside the others'
    ],
)
def test_the_cut_of_the_sizes(num_queries: int, num_documents: int, blocks: int, parts: int) -> None:
    size = units.part_size(blocks, num_documents)
    grid = units.Grid(num_queries, num_documents, 10, units.QUERY_BLOCK, size)
    assert (grid.num_blocks, grid.num_parts) == (blocks, parts)
    covered = [grid.documents(part) for part in range(parts)]
    assert covered[0].start == 0
    assert covered[-1].stop == num_documents
    assert all(one.stop == other.start for one, other in pairwise(covered))


def test_a_folder_of_other_sizes_is_refused(tmp_path: Path) -> None:
    search_units(vectors(6, 4), vectors(7, 9), 3, tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} holds units of another search: ")):
        search_units(vectors(6, 4), vectors(7, 9), 4, tmp_path)


def test_blocks_of_a_pass_are_searched_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: fewer passes over the documents, the same files."""
    queries, documents = vectors(2, 75), vectors(3, 300)
    sizes = {"query_block": 8, "document_block": 100, "rank": 1, "world": 2}
    alone = search_units(queries, documents, 5, tmp_path / "alone", **sizes)
    passes = []
    find = units.search_block
    monkeypatch.setattr(units, "search_block", lambda *a, **b: passes.append(len(a[0])) or find(*a, **b))
    monkeypatch.setitem(units.BLOCKS_A_PASS, "cpu", 3)
    together = search_units(queries, documents, 5, tmp_path / "together", **sizes)
    assert together.made == alone.made == 15
    assert passes == [24, 16, 24, 11, 24, 11]  # five blocks a part; the very last holds three queries
    assert files(tmp_path / "alone") == files(tmp_path / "together")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_vectors_of_any_precision(tmp_path: Path, dtype: type) -> None:
    queries, documents = vectors(8, 30).astype(dtype), vectors(9, 500).astype(dtype)
    exact = search(queries.astype(np.float64), documents.astype(np.float64), 10)
    found = whole(search_units(queries, documents, 10, tmp_path, document_block=64))
    np.testing.assert_array_equal(found[0], exact[0])
    np.testing.assert_array_equal(found[1], exact[1])


MEMORY = """
import sys, threading, time, numpy as np
from pathlib import Path
from embedtrain.search import search_units
folder, num = Path(sys.argv[1]), int(sys.argv[2])
queries, documents = (np.load(folder / name, mmap_mode="r") for name in ("queries.npy", "documents.npy"))
peak = 0.0
def watch():
    global peak
    while True:
        status = Path("/proc/self/status").read_text().splitlines()
        peak = max(peak, int(next(line for line in status if line.startswith("RssAnon")).split()[1]) / 1024)
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
for ids, scores in search_units(queries[:num], documents, 50, folder / str(num), query_block=256):
    pass
print(peak)
"""


def test_memory_does_not_grow_with_the_queries(tmp_path: Path) -> None:
    """2,000 queries and 30,000: their rankings alone would be 24 MB, their vectors 1 MB."""
    np.save(tmp_path / "queries.npy", np.tile(vectors(10, 2000, 8), (15, 1)))
    np.save(tmp_path / "documents.npy", vectors(11, 3000, 8))
    megabytes = []
    for num in ("2000", "30000"):
        run = [sys.executable, "-c", MEMORY, tmp_path, num]
        megabytes.append(float(subprocess.run(run, cwd=ROOT, capture_output=True, check=True).stdout))
    assert abs(megabytes[1] - megabytes[0]) < 10, megabytes


WORDS = [f"word{number}" for number in range(60)]


def sentences(seed: int, num: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 12))) for _ in range(num)]


def test_bm25_in_units(tmp_path: Path) -> None:
    index = BM25Index(sentences(0, 90))
    queries = sentences(1, 25)
    first = bm25_units(index, queries, 7, tmp_path, rank=1, world=2, query_block=4, num_searched=80)
    second = bm25_units(index, queries, 7, tmp_path, rank=0, world=2, query_block=4, num_searched=80)
    assert (first.made, second.made, second.num_blocks) == (3, 4, 7)
    ids, scores = index.search(queries, 7, 80)
    assert ids.max() < 80
    np.testing.assert_array_equal(whole(second)[0], ids)
    np.testing.assert_array_equal(whole(second)[1], scores)
