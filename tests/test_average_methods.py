"""Soup methods, each against a slow version in loops over single numbers."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from embedtrain.average import average, merge, tensors_in_memory
from embedtrain.average.methods import draws, weighted_sum
from embedtrain.average.slerp import slerp_factors
from embedtrain.average.trimming import find_limits, trim
from embedtrain.config.errors import UserError
from embedtrain.config.soups import Dare, Mean, Slerp, SoupMethod, TaskArithmetic, Ties

SHAPE = (5, 7)
BASE = {"w": torch.randn(SHAPE, generator=torch.Generator().manual_seed(9)), "count": torch.tensor(3)}


def checkpoints(number: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    """Weights near the base, with exact repeats, ties and zeros among the differences."""
    made = []
    for seed in range(number):
        step = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
        made.append({"w": (BASE["w"] + step).to(dtype), "count": torch.tensor(3)})
    return made


def merged(method: SoupMethod, models: Sequence[dict[str, Tensor]], seed: int = 0) -> Tensor:
    """The tensor `w` of the merged model."""
    readers = [tensors_in_memory(model, f"m{number}") for number, model in enumerate(models)]
    return merge(readers, method, base=tensors_in_memory(BASE, "base"), seed=seed).read("w")


def numbers(models: Sequence[dict[str, Tensor]]) -> list[list[float]]:
    """Each model's numbers, flat, as Python floats (exact)."""
    return [model["w"].double().reshape(-1).tolist() for model in models]


def doubles(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def differences(models: Sequence[dict[str, Tensor]]) -> list[list[float]]:
    base = BASE["w"].double().reshape(-1).tolist()
    return [[x - b for x, b in zip(line, base, strict=True)] for line in numbers(models)]


def on_base(changes: Sequence[float], scale: float) -> Tensor:
    base = BASE["w"].double().reshape(-1).tolist()
    wanted = [b + scale * change for b, change in zip(base, changes, strict=True)]
    return torch.tensor(wanted, dtype=torch.float64).reshape(SHAPE).float()


def slow_trim(line: Sequence[float], density: float) -> list[float]:
    kept = sorted(range(len(line)), key=lambda place: (-abs(line[place]), place))[
        : round(density * len(line))
    ]
    return [number if place in kept else 0.0 for place, number in enumerate(line)]


def slow_agreed(lines: Sequence[Sequence[float]]) -> list[float]:
    result = []
    for values in zip(*lines, strict=True):
        total = sum(values)
        agree = [value for value in values if total != 0 and value * total > 0]
        result.append(sum(agree) / len(agree) if agree else 0.0)
    return result


def slow_slerp(one: Sequence[float], other: Sequence[float], t: float) -> list[float]:
    length = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    angle = math.acos(sum(x * y for x, y in zip(one, other, strict=True)) / length)
    first, second = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return [first * x + second * y for x, y in zip(one, other, strict=True)]


def test_weighted_mean_is_that_of_loops() -> None:
    models, weights = checkpoints(3), (1.0, 2.0, 5.0)
    found = merged(Mean(kind="mean", weights=weights), models)
    wanted = [
        sum(w * x for w, x in zip(weights, xs, strict=True)) / 8 for xs in zip(*numbers(models), strict=True)
    ]
    assert torch.allclose(found.reshape(-1).double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-7)
    assert torch.equal(
        merged(Mean(kind="mean"), models), merged(Mean(kind="mean", weights=(3.0,) * 3), models)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_soup_of_one_model_is_that_model(dtype: torch.dtype) -> None:
    [model] = checkpoints(1, dtype)
    for method in (Mean(kind="mean"), Slerp(kind="slerp"), Mean(kind="mean", weights=(0.1, 0.7, 0.2))):
        soup = merge([tensors_in_memory(model, str(number)) for number in range(3)], method)
        assert torch.equal(soup.read("w"), model["w"])
        assert soup.read("count").item() == 3


def test_slerp_ends_are_exact_to_the_byte() -> None:
    one, other = (torch.randn(SHAPE, dtype=torch.float64) for _ in range(2))
    one[0, 0], other[0, 0] = -0.0, 1.0
    cosine = float(torch.nn.functional.cosine_similarity(one.reshape(-1), other.reshape(-1), dim=0))
    for cos in (cosine, 1.0, -1.0):
        for fraction, end in ((0.0, one), (1.0, other)):
            point = weighted_sum((one, other), slerp_factors(cos, fraction))
            assert point.numpy().tobytes() == end.numpy().tobytes()


def test_slerp_is_that_of_loops() -> None:
    models = checkpoints(2)
    found = merged(Slerp(kind="slerp", weights=(7.0, 3.0)), models).reshape(-1).double()
    assert torch.allclose(found, doubles(slow_slerp(*numbers(models), 0.3)), rtol=1e-7)


def test_slerp_of_many_takes_each_by_its_share_so_far() -> None:
    models, weights = checkpoints(4), (1.0, 2.0, 3.0, 4.0)
    mixed, *others = numbers(models)
    so_far = [1.0, 3.0, 6.0, 10.0]
    for line, (before, now) in zip(others, pairwise(so_far), strict=True):
        mixed = slow_slerp(mixed, line, (now - before) / now)
    found = merged(Slerp(kind="slerp", weights=weights), models).double().reshape(-1)
    assert torch.allclose(found, doubles(mixed), rtol=1e-6)


@pytest.mark.parametrize("other", [2.0, -1.0, 0.0])
def test_slerp_of_parallel_opposite_and_zero_tensors_is_a_line(other: float) -> None:
    one = torch.arange(1.0, 4.0)
    models = [tensors_in_memory({"w": tensor}, "m") for tensor in (one, other * one)]
    mixed = merge(models, Slerp(kind="slerp", weights=(3.0, 1.0))).read("w")
    assert torch.allclose(mixed, (0.75 + 0.25 * other) * one)


def test_task_arithmetic_adds_the_differences() -> None:
    models = checkpoints(3)
    changes = [sum(values) for values in zip(*differences(models), strict=True)]
    found = merged(TaskArithmetic(kind="task_arithmetic", scale=0.4), models)
    assert torch.allclose(found, on_base(changes, 0.4), rtol=1e-6)


@pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
def test_ties_is_that_of_loops(density: float) -> None:
    models = checkpoints(3)
    changes = slow_agreed([slow_trim(line, density) for line in differences(models)])
    found = merged(Ties(kind="ties", density=density, scale=0.7), models)
    assert torch.allclose(found, on_base(changes, 0.7), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("wanted", [0, 1, 9, 20, 21])
def test_trimming_is_that_of_a_sort(wanted: int) -> None:
    for seed in range(20):
        whole = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed)).double().round(decimals=1)
        [limit] = find_limits(lambda rows=whole: ([row] for row in rows), [wanted])
        found = torch.cat([trim(row, limit, 3 * place) for place, row in enumerate(whole)])
        assert found.tolist() == slow_trim(whole.reshape(-1).tolist(), wanted / 21)


def test_equal_sizes_are_trimmed_by_place() -> None:
    numbers = torch.tensor([1.0, -1.0, 1.0, 0.5], dtype=torch.float64)
    [limit] = find_limits(lambda: [[numbers]], [2])
    assert trim(numbers, limit, 0).tolist() == [1.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize("place", [0, 1, 4, 7, 1000])
def test_draws_are_the_same_from_any_place(place: int) -> None:
    whole = draws("5:0:w", 0, (1200,))
    assert torch.equal(draws("5:0:w", place, (3, 40)), whole[place : place + 120].reshape(3, 40))
    assert not torch.equal(draws("5:1:w", 0, (1200,)), whole)
    assert abs(float(whole.mean()) - 0.5) < 0.03


@pytest.mark.parametrize("elect_signs", [False, True])
def test_dare_is_that_of_loops(elect_signs: bool) -> None:
    models, density = checkpoints(3), 0.4
    lines = []
    for number, line in enumerate(differences(models)):
        drawn = draws(f"5:{number}:w", 0, SHAPE).reshape(-1).tolist()
        lines.append(
            [x / density if chance < density else 0.0 for x, chance in zip(line, drawn, strict=True)]
        )
    assert 0 < sum(x == 0 for line in lines for x in line) < 3 * 35
    changes = slow_agreed(lines) if elect_signs else [sum(values) for values in zip(*lines, strict=True)]
    method = Dare(kind="dare", density=density, elect_signs=elect_signs)
    assert torch.allclose(merged(method, models, seed=5), on_base(changes, 1.0), rtol=1e-6, atol=1e-7)
    assert torch.equal(merged(method, models, seed=5), merged(method, models, seed=5))
    assert not torch.equal(merged(method, models, seed=5), merged(method, models, seed=6))


def test_nothing_is_dropped_at_full_density() -> None:
    models = checkpoints(2)
    plain = merged(TaskArithmetic(kind="task_arithmetic"), models)
    assert torch.equal(merged(Dare(kind="dare", density=1.0), models), plain)


def test_a_base_of_another_shape_is_refused() -> None:
    readers = [tensors_in_memory(model, str(number)) for number, model in enumerate(checkpoints(2))]
    other = tensors_in_memory(BASE | {"w": torch.zeros(2, 2)}, "the base")
    with pytest.raises(UserError, match=r"w: float32 5x7 in 0, float32 2x2 in the base"):
        merge(readers, Ties(kind="ties"), base=other)


def test_the_uniform_average_is_the_mean() -> None:
    readers = [tensors_in_memory(model, str(number)) for number, model in enumerate(checkpoints(3))]
    assert torch.equal(average(readers).read("w"), merge(readers, Mean(kind="mean")).read("w"))
