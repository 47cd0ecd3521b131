"""Truncated factors of differences: exact where the rank suffices, optimal where not, errors as measured."""

import math

import pytest
import torch
from torch import Tensor

from embedtrain.average import Tensors, tensors_in_memory
from embedtrain.average.fold import Folded, fold, fold_one, overall_error
from embedtrain.config.errors import UserError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product(part: Folded) -> Tensor:
    assert part.a_RI is not None
    assert part.b_OR is not None
    assert part.a_RI.dtype == part.b_OR.dtype == torch.float32
    return part.b_OR.double() @ part.a_RI.double()


@pytest.mark.parametrize(("outputs", "inputs"), [(9, 6), (6, 9), (7, 7)])
def test_a_difference_of_the_rank_is_kept_whole(outputs: int, inputs: int) -> None:
    difference = drawn(outputs, 3) @ drawn(3, inputs, seed=1)
    part = fold_one("w", difference, 3)
    assert part.error < 1e-6
    assert torch.allclose(product(part), difference, atol=1e-5)
    assert fold_one("w", difference, 2).error > 0.01  # the premise: its rank is no less


def test_the_error_is_that_of_the_dropped_singular_values() -> None:
    difference = drawn(12, 8)
    for rank in range(1, 9):
        part = fold_one("w", difference, rank)
        lost = sum(float(s) ** 2 for s in torch.linalg.svdvals(difference)[rank:])
        assert part.error == pytest.approx(math.sqrt(lost) / float(difference.norm()), abs=1e-6)
        assert part.missed == pytest.approx(float((difference - product(part)).norm()), rel=1e-12)


def test_no_other_factors_of_the_rank_are_closer() -> None:
    difference = drawn(6, 5)
    part = fold_one("w", difference, 2)
    for seed in range(20):  # the best A for any other B is least squares
        b = product(part) @ drawn(5, 2, seed=seed) + 0.01 * drawn(6, 2, seed=seed + 99)
        a = torch.linalg.lstsq(b, difference).solution
        assert float((difference - b @ a).norm()) >= part.missed - 1e-6


def test_a_rank_beyond_the_matrix_is_filled_with_zeros() -> None:
    part = fold_one("w", drawn(3, 5), 8)
    assert part.a_RI is not None
    assert part.b_OR is not None
    assert (part.b_OR.shape, part.a_RI.shape) == ((3, 8), (8, 5))
    assert not part.a_RI[3:].any()
    assert part.error < 1e-6


def pair() -> tuple[Tensors, Tensors]:
    """A base, and a model that differs from it in one layer, one norm, and nowhere else."""
    base = {"a.weight": drawn(4, 6), "b.weight": drawn(4, 4), "norm": drawn(4), "count": torch.tensor(3)}
    merged = base | {"a.weight": base["a.weight"] + drawn(4, 6, seed=3), "norm": base["norm"] + 0.5}
    return tensors_in_memory(merged, "merged"), tensors_in_memory(base, "base")


def test_what_no_adapter_holds_counts_as_lost() -> None:
    merged, base = pair()
    parts = {part.name: part for part in fold(merged, base, ["a.weight", "b.weight"], 2)}
    assert list(parts) == ["a.weight", "b.weight", "norm"]
    assert 0 < parts["a.weight"].error < 1
    assert parts["b.weight"].error == 0.0
    assert not product(parts["b.weight"]).any()
    assert parts["norm"].a_RI is None
    assert parts["norm"].error == 1.0
    lost = parts["a.weight"].missed ** 2 + 4 * 0.5**2
    whole = float((merged.read("a.weight") - base.read("a.weight")).norm()) ** 2 + 4 * 0.5**2
    assert overall_error(parts.values()) == pytest.approx(math.sqrt(lost / whole), rel=1e-12)


def test_no_difference_at_all_has_no_error() -> None:
    _, base = pair()
    assert overall_error(list(fold(base, base, ["a.weight"], 1))) == 0.0


def test_a_tensor_is_read_once_and_one_at_a_time() -> None:
    merged, base = pair()
    order: list[str] = []

    def noted(tensors: Tensors) -> Tensors:
        def read(name: str) -> Tensor:
            order.append(f"{tensors.origin}.{name}")
            return tensors.read(name)

        return Tensors(tensors.origin, tensors.info, read)

    for part in fold(noted(merged), noted(base), ["a.weight"], 1):
        assert order[-2:] == [f"merged.{part.name}", f"base.{part.name}"]
    assert len(order) == 6


def test_another_base_is_refused() -> None:
    merged, base = pair()
    with pytest.raises(UserError, match="only in merged: norm"):
        list(fold(merged, base.only(["a.weight", "b.weight", "count"]), [], 1))
