"""Files that are written aside: where writing fails, for real, nothing stays beside what was there before."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_disks import small_files

from embedtrain.artifacts import replace_link, write_atomic
from embedtrain.average import tensors_in_memory, write_tensors
from embedtrain.config.retrievers import Approximate
from embedtrain.data.tokens.encode import Tokens
from embedtrain.data.tokens.shards import write_shard
from embedtrain.mining.retrieve import write_unit
from embedtrain.mining.tables import CORPUS_SCHEMA, corpus_table, table_writer
from embedtrain.model.checkpoint import save_tensors
from embedtrain.search.approximate import approximate_units
from embedtrain.search.units import search_units

LIMIT = 2**16
NUM = 4000
RNG = np.random.default_rng(0)
NOISE = [RNG.bytes(20).hex() for _ in range(NUM)]  # which no packing makes small
VECTORS = RNG.standard_normal((NUM, 16)).astype(np.float32)


def content(folder: Path) -> None:
    write_atomic(folder / "file", bytes(2 * LIMIT))


def table(folder: Path) -> None:
    with table_writer(folder / "file", CORPUS_SCHEMA) as writer:
        for start in range(0, NUM, 1000):
            writer.write_table(corpus_table("one", np.arange(1000), NOISE[start : start + 1000], start))


def unit(folder: Path) -> None:
    write_unit(folder / "file", pa.table({"text": NOISE}))


def tokens(folder: Path) -> None:
    lengths = np.full(NUM, 16)
    made = Tokens(np.arange(16 * NUM), lengths, np.zeros(NUM, np.int64))
    write_shard(folder, 0, np.dtype(np.int32), np.arange(NUM), [(made, np.zeros(NUM, bool))])


def tensors(folder: Path) -> None:
    save_tensors({"w": torch.from_numpy(VECTORS)}, folder / "file")


def streamed_tensors(folder: Path) -> None:
    write_tensors(folder / "file", tensors_in_memory({"w": torch.from_numpy(VECTORS)}, "here"))


def units_of_a_search(folder: Path) -> None:
    search_units(VECTORS, VECTORS, 9, folder)


def index(folder: Path) -> None:
    pytest.importorskip("faiss")
    few = Approximate(above_documents=100, num_lists=8, num_probes=2)
    approximate_units(VECTORS[:8], VECTORS, 5, folder, few)


WRITERS = [content, table, unit, tokens, tensors, streamed_tensors, units_of_a_search, index]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_nothing_stays_of_a_file_that_could_not_be_written(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("before")
    with small_files(LIMIT), pytest.raises(Exception, match=r"(?i)file too large|error.*27|write"):
        write(tmp_path)
    assert [path for path in tmp_path.iterdir() if "partial" in path.name] == []
    assert (tmp_path / "file").read_text() == "before"
    write(tmp_path)  # the premise: the limit alone was in the way
    assert max(path.stat().st_size for path in tmp_path.iterdir()) > LIMIT


def test_nothing_stays_of_a_link_that_could_not_be_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_link(tmp_path / "model", tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
