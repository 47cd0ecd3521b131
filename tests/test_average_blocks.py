"""Blocks of rows: whatever their height, the bytes are the same, and no more than a block is read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from embedtrain.average import Tensors, merge, tensors, tensors_in_memory, write_tensors
from embedtrain.average.tensors import TensorInfo
from embedtrain.config.soups import Dare, Mean, Slerp, SoupMethod, TaskArithmetic, Ties

METHODS = [
    Mean(kind="mean", weights=(1.0, 2.0, 4.0)),
    Slerp(kind="slerp", weights=(1.0, 2.0, 4.0)),
    TaskArithmetic(kind="task_arithmetic", scale=0.4),
    Ties(kind="ties", density=0.3),
    Dare(kind="dare", density=0.6),
    Dare(kind="dare", density=0.6, elect_signs=True),
]
SHAPES = {"table": (37, 6), "line": (41,), "deep": (5, 3, 4), "wide": (2, 50), "one": (1, 7), "scalar": ()}


def drawn(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors of odd shapes, with equal numbers among them."""
    draws = torch.Generator().manual_seed(seed)
    made = {n: torch.randn(s, generator=draws).round(decimals=1).to(dtype) for n, s in SHAPES.items()}
    return made | {"count": torch.arange(50), "empty": torch.zeros(0, 3, dtype=dtype)}


def mixed(method: SoupMethod, dtype: torch.dtype = torch.float32) -> Tensors:
    """Three models as one."""
    parts = [tensors_in_memory(drawn(seed, dtype), f"m{seed}") for seed in (1, 2, 3)]
    return merge(parts, method, base=tensors_in_memory(drawn(0, dtype), "base"), seed=5)


@pytest.fixture(params=[1, 4, 13, 64])
def height(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Numbers in a block, far fewer than in a tensor."""
    number: int = request.param
    monkeypatch.setattr(tensors, "BLOCK", number)
    assert len(list(TensorInfo(torch.float32, SHAPES["table"]).blocks())) > 3
    return number


@pytest.fixture(scope="module")
def whole() -> dict[tuple[str, torch.dtype], dict[str, Tensor]]:
    """Each method's tensors, each in one block."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        for method in METHODS:
            soup = mixed(method, dtype)
            assert all(len(list(info.blocks())) <= 1 for info in soup.info.values())
            found[repr(method), dtype] = {name: soup.read(name) for name in soup.info}
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: repr(method)[:20])
def test_blocks_give_the_bytes_of_the_whole(
    tmp_path: Path, whole: dict, height: int, method: SoupMethod, dtype: torch.dtype
) -> None:
    soup = mixed(method, dtype)
    write_tensors(tmp_path / "soup.safetensors", soup)
    written = load_file(tmp_path / "soup.safetensors")
    for name, wanted in whole[repr(method), dtype].items():
        for found in (written[name], soup.read(name)):
            assert found.dtype == wanted.dtype
            assert found.shape == wanted.shape
            assert found.contiguous().reshape(-1).view(torch.uint8).tolist() == (
                wanted.contiguous().reshape(-1).view(torch.uint8).tolist()
            ), name


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1,), (7,), (7, 3), (2, 100), (3, 2, 5)])
def test_blocks_cover_each_row_once(height: int, shape: tuple[int, ...]) -> None:
    blocks = list(TensorInfo(torch.float32, shape).blocks())
    rows = [row for start, stop in blocks for row in range(start, stop)]
    assert rows == list(range(shape[0] if shape else 1))
    row = torch.Size(shape[1:]).numel()
    assert all((stop - start) * row <= max(height, row) for start, stop in blocks)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: repr(method)[:20])
def test_no_more_than_a_block_is_read(tmp_path: Path, height: int, method: SoupMethod) -> None:
    largest = 0

    def counted(plain: Tensors) -> Tensors:
        def read_rows(name: str, start: int, stop: int) -> Tensor:
            nonlocal largest
            rows = plain.read(name)[start:stop]
            largest = max(largest, rows.numel())
            return rows

        def read(name: str) -> Tensor:
            return read_rows(name, 0, plain.info[name].shape[0])

        return Tensors(plain.origin, plain.info, read, read_rows)

    stored = [{"table": drawn(seed)["table"]} for seed in range(3)]
    base, *parts = [counted(tensors_in_memory(one, "m")) for one in stored]
    method = method.model_copy(update={"weights": None}) if isinstance(method, Mean | Slerp) else method
    write_tensors(tmp_path / "soup.safetensors", merge(parts, method, base=base))
    assert 0 < largest <= max(height, 6)


def views() -> Iterator[tuple[str, Tensors]]:
    """Readers made of readers."""
    stored = tensors_in_memory(drawn(1), "m")
    yield "table", stored.cast(torch.float64)
    yield "other", stored.renamed({"other": "table"})
    yield "table", stored.only(["table"])
    yield "table", stored.beside(tensors_in_memory({"more": torch.ones(2)}, "n"))


def test_readers_of_readers_read_rows(height: int) -> None:
    for name, view in views():
        expected = drawn(1)["table"].to(view.info[name].dtype)
        assert torch.equal(view.read(name), expected)
        assert torch.equal(torch.cat(list(view.blocks(name))), expected)
        assert torch.equal(view.rows(name, 3, 9), expected[3:9])
