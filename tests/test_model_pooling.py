"""Pooling against plain Python loops in float64."""

import pytest
import torch
from torch import Tensor

from embedtrain.model.pooling import POOLINGS, pool

LENGTHS = (7, 4, 1, 5)
STARTS = (0, 2, 0, 5)  # first pooled token; the last text is all instruction


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    states = torch.randn(4, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    positions = torch.arange(7)
    mask = positions < torch.tensor(LENGTHS)[:, None]
    return states, mask, mask & (positions >= torch.tensor(STARTS)[:, None])


def slow_pool(states: list[list[float]], length: int, start: int, pooling: str) -> list[float]:
    """One text, one number at a time."""
    if pooling == "cls":
        return states[0]
    if pooling == "last_token":
        return states[length - 1]
    pooled = [0.0] * len(states[0])
    total = 0.0
    for position in range(start, length):
        weight = position + 1 if pooling == "weighted_mean" else 1
        total += weight
        for dim, value in enumerate(states[position]):
            pooled[dim] += weight * value
    return [value / total for value in pooled] if total else pooled


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_equals_the_slow_one(pooling: str) -> None:
    states, mask, pooled = case()
    expected = [
        slow_pool(rows, length, start, pooling)
        for rows, length, start in zip(states.tolist(), LENGTHS, STARTS, strict=True)
    ]
    found = pool(states, mask, pooled, pooling)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-15)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_on_the_left_changes_nothing_but_positions(pooling: str) -> None:
    """cls and last token follow the mask; so does the mean."""
    if pooling == "weighted_mean":
        shift = pool(*(torch.nn.functional.pad(t, (0, 0) * (t.dim() - 2) + (0, 2)) for t in case()), pooling)
        assert torch.allclose(shift, pool(*case(), pooling))
        return
    states, mask, pooled = case()
    left = [torch.cat([torch.zeros_like(t[:, :2]), t], dim=1) for t in (states, mask, pooled)]
    assert torch.allclose(pool(*left, pooling), pool(states, mask, pooled, pooling))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_bfloat16_is_summed_in_float32(pooling: str) -> None:
    states, mask, pooled = case(torch.bfloat16)
    found = pool(states, mask, pooled, pooling)
    assert found.dtype == torch.float32
    assert torch.allclose(found, pool(states.double(), mask, pooled, pooling).float(), atol=1e-6)


def test_states_of_padding_have_no_say() -> None:
    states, mask, pooled = case()
    other = states.masked_fill(~mask[..., None], 1e6)
    for pooling in POOLINGS:
        assert torch.equal(pool(states, mask, pooled, pooling), pool(other, mask, pooled, pooling))
