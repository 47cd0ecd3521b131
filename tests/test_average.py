"""Averages tensor by tensor, and the header-first safetensors writer."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedtrain.average import (
    Tensors,
    average,
    open_tensors,
    split_by_bytes,
    tensors_in_memory,
    write_sharded,
    write_tensors,
)
from embedtrain.config.errors import UserError


def mixed_tensors(seed: int) -> dict[str, Tensor]:
    """Every awkward kind: bfloat16 of odd length, scalar, empty, integers, booleans."""
    make = torch.Generator().manual_seed(seed)
    return {
        "wide": torch.randn(7, 5, generator=make),
        "half": torch.randn(3, generator=make).bfloat16(),
        "double": torch.randn(2, 2, generator=make).double(),
        "scalar": torch.randn((), generator=make),
        "empty": torch.zeros(0, 4),
        "count": torch.tensor(3),
        "flags": torch.tensor([True, False, True]),
        "turned": torch.randn(4, 6, generator=make).T,
    }


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and torch.equal(one[n], other[n]) for n in one
    )


def test_written_file_is_read_back_by_safetensors(tmp_path: Path) -> None:
    tensors = mixed_tensors(0)
    write_tensors(tmp_path / "model.safetensors", tensors_in_memory(tensors, "memory"))
    assert equal(load_file(tmp_path / "model.safetensors"), tensors)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_average_equals_the_obvious_one(tmp_path: Path) -> None:
    checkpoints = [mixed_tensors(seed) for seed in range(3)]
    for i, tensors in enumerate(checkpoints):
        save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / f"{i}.safetensors")
    with ExitStack() as stack:
        opened = [open_tensors(tmp_path / f"{i}.safetensors", stack) for i in range(3)]
        write_tensors(tmp_path / "soup.safetensors", average(opened))
    soup = load_file(tmp_path / "soup.safetensors")
    for name, first in checkpoints[0].items():
        expected = sum(c[name].double() for c in checkpoints) / 3 if first.is_floating_point() else first
        assert soup[name].dtype == first.dtype
        assert torch.equal(soup[name], torch.as_tensor(expected).to(first.dtype)), name


def test_sum_is_made_in_float64() -> None:
    values = [torch.tensor([x]) for x in (1e8, 1.0, -1e8)]
    naive = (values[0] + values[1] + values[2]) / 3
    soup = average([tensors_in_memory({"w": v}, str(i)) for i, v in enumerate(values)]).read("w")
    assert naive.item() != pytest.approx(1 / 3)  # the premise: float32 loses the one
    assert soup.item() == pytest.approx(1 / 3)
    assert soup.dtype == torch.float32


def test_one_tensor_is_read_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def counted(origin: str) -> Tensors:
        plain = tensors_in_memory({"a": torch.ones(2), "b": torch.zeros(2)}, origin)

        def read(name: str) -> Tensor:
            order.append(f"{origin}.{name}")
            return plain.read(name)

        return Tensors(origin, plain.info, read)

    write_tensors(tmp_path / "soup.safetensors", average([counted("x"), counted("y")]))
    assert order == ["x.a", "y.a", "x.b", "y.b"]


def test_differing_checkpoints_are_refused_by_name() -> None:
    one = tensors_in_memory({"a": torch.ones(2), "b": torch.ones(2, 3), "c": torch.ones(1)}, "runs/one")
    other = tensors_in_memory({"a": torch.ones(2), "b": torch.ones(3, 2), "d": torch.ones(1)}, "runs/two")
    with pytest.raises(UserError) as caught:
        average([one, other])
    assert str(caught.value) == (
        "checkpoints do not hold the same tensors:\n"
        "  only in runs/one: c\n"
        "  only in runs/two: d\n"
        "  b: float32 2x3 in runs/one, float32 3x2 in runs/two"
    )


def test_differing_dtypes_are_refused() -> None:
    one, other = ({"a": torch.ones(2, dtype=d)} for d in (torch.float32, torch.bfloat16))
    with pytest.raises(UserError, match="a: float32 2 in x, bfloat16 2 in y"):
        average([tensors_in_memory(one, "x"), tensors_in_memory(other, "y")])


def test_differing_integers_are_refused() -> None:
    pair = [tensors_in_memory({"ids": torch.tensor([i])}, f"m{i}") for i in range(2)]
    with pytest.raises(UserError, match=r"'ids' is torch\.int64 and differs between m0 and m1"):
        average(pair).read("ids")


def test_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(UserError, match=r"no model\.safetensors there"):
        open_tensors(tmp_path, stack)


def test_shards_hold_all_and_stay_small(tmp_path: Path) -> None:
    tensors = {f"layer.{i}": torch.full((10,), float(i)) for i in range(5)}
    names = write_sharded(tmp_path, tensors_in_memory(tensors, "memory"), max_bytes=85)
    assert names == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    with ExitStack() as stack:
        opened = open_tensors(tmp_path, stack)
        assert equal({n: opened.read(n) for n in sorted(opened.info)}, dict(sorted(tensors.items())))
    assert split_by_bytes(tensors_in_memory({"big": torch.ones(50)}, "m"), 1) == [["big"]]


def test_a_reader_that_lies_about_its_shape_is_caught(tmp_path: Path) -> None:
    honest = tensors_in_memory({"a": torch.ones(2)}, "m")
    liar = Tensors("m", honest.info, lambda name: torch.ones(3))
    with pytest.raises(ValueError, match="'a' was read as another shape"):
        write_tensors(tmp_path / "model.safetensors", liar)
    assert not (tmp_path / "model.safetensors").exists()
