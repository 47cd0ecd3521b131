"""Pooling against plain Python loops in float64."""

import pytest
import torch
from torch import Tensor

from embedtrain.batch import TokenBatch
from embedtrain.model.packed import groups_of
from embedtrain.model.pooling import POOLINGS, pool

LENGTHS = (7, 4, 4, 4, 1, 5, 0, 0, 1)
STARTS = (0, 2, 0, 3, 0, 5, 0, 2, 0)  # first pooled token; the text of five is all instruction
GROUPS = ((1, 7), (3, 4), (1, 1), (1, 5), (2, 0), (1, 1))


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """States of all tokens, and the first pooled one of each text."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(sum(LENGTHS), 3, dtype=torch.float64, generator=generator).to(dtype)
    return states, torch.tensor(STARTS)


def slow_pool(states: list[list[float]], start: int, pooling: str) -> list[float]:
    """One text, one number at a time."""
    pooled = [0.0] * 3
    if not states:
        return pooled
    if pooling == "cls":
        return states[0]
    if pooling == "last_token":
        return states[-1]
    total = 0.0
    for position in range(start, len(states)):
        weight = position + 1 if pooling == "weighted_mean" else 1
        total += weight
        for dim, value in enumerate(states[position]):
            pooled[dim] += weight * value
    return [value / total for value in pooled] if total else pooled


def slow_pools(states: Tensor, starts: tuple[int, ...], pooling: str) -> Tensor:
    texts = [rows.tolist() for rows in states.split(list(LENGTHS))]
    pooled = [slow_pool(rows, start, pooling) for rows, start in zip(texts, starts, strict=True)]
    return torch.tensor(pooled, dtype=torch.float64)


def test_groups_are_the_runs_of_one_length() -> None:
    assert groups_of(TokenBatch.of([[1] * length for length in LENGTHS])) == GROUPS
    assert groups_of(TokenBatch.of([])) == ()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_equals_the_slow_one(pooling: str) -> None:
    states, firsts = case()
    found = pool(states, GROUPS, firsts, pooling)
    assert found.dtype == torch.float64
    assert torch.allclose(found, slow_pools(states, STARTS, pooling), atol=1e-15)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_without_firsts_all_tokens_count(pooling: str) -> None:
    states, firsts = case()
    found = pool(states, GROUPS, None, pooling)
    assert torch.allclose(found, slow_pools(states, (0,) * len(LENGTHS), pooling), atol=1e-15)
    assert torch.allclose(found, pool(states, GROUPS, torch.zeros_like(firsts), pooling), atol=1e-15)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_one_length_in_one_run_or_in_many(pooling: str) -> None:
    """How texts are grouped changes nothing, nor does the place where a text stands among others."""
    states, firsts = case()
    together = pool(states, GROUPS, firsts, pooling)
    single = pool(states, [(1, length) for length in LENGTHS], firsts, pooling)
    assert torch.allclose(single, together, atol=1e-15)
    texts = list(zip(states.split(list(LENGTHS)), LENGTHS, firsts, strict=True))
    alone = [pool(rows, ((1, length),), first[None], pooling) for rows, length, first in texts]
    assert torch.allclose(torch.cat(alone), together, atol=1e-15)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_bfloat16_is_summed_in_float32(pooling: str) -> None:
    states, firsts = case(torch.bfloat16)
    for given in (firsts, None):
        found = pool(states, GROUPS, given, pooling)
        assert found.dtype == torch.float32
        assert torch.allclose(found, pool(states.double(), GROUPS, given, pooling).float(), atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_other_texts_and_the_instruction_have_no_say(pooling: str) -> None:
    """Whatever stands beside the third text: of its vector not a bit changes."""
    states, firsts = case()
    firsts[2] = 1 if pooling in ("mean", "weighted_mean") else 0
    begin, end = sum(LENGTHS[:2]), sum(LENGTHS[:3])
    other = torch.full_like(states, 1e6)
    other[begin + firsts[2] : end] = states[begin + firsts[2] : end]
    found, expected = (pool(x, GROUPS, firsts, pooling) for x in (other, states))
    assert torch.equal(found[2], expected[2])
    assert not torch.equal(found[1], expected[1]), "the premise: the others are changed"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_nothing_to_pool(pooling: str, dtype: torch.dtype) -> None:
    """No text, and texts without tokens: no vector, and zeros, as precise as any other."""
    states = torch.zeros(0, 3, dtype=dtype)
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    for groups, firsts in (((), torch.zeros(0, dtype=torch.int64)), (((2, 0),), torch.tensor([0, 1]))):
        for given in (firsts, None):
            found = pool(states, groups, given, pooling)
            assert found.dtype == precise
            assert torch.equal(found, torch.zeros(sum(num for num, _ in groups), 3, dtype=precise))
