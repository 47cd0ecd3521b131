"""How one tensor of several checkpoints becomes one: pure functions, float64 in and out.

M checkpoints; all tensors of a call have one shape. Weights are float64, one a checkpoint.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

PARALLEL = 1.0 - 1e-9
"""Cosine from which on two tensors count as parallel: there the great circle is a straight line."""


def mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ w·θ / Σ w."""
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor
    return total / sum(weights)


def slerp(one: Tensor, other: Tensor, fraction: float) -> Tensor:
    """The point at `fraction` of the way from `one` to `other` on the great circle of their directions.

    Lengths are not changed before: sin((1-t)Ω)/sin Ω · one + sin(tΩ)/sin Ω · other, Ω the angle between them
    (Shoemake 1985). A straight line where they are parallel, opposite or one is zero.
    """
    lengths = one.norm() * other.norm()
    cosine = float((one * other).sum() / lengths) if lengths > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return (1 - fraction) * one + fraction * other
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    first, second = torch.sin((1 - fraction) * angle), torch.sin(fraction * angle)
    return first / torch.sin(angle) * one + second / torch.sin(angle) * other


def slerp_all(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Each in turn: from the mix so far to the next, by its share of the weight up to it."""
    mixed, so_far = tensors[0], weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        so_far += weight
        mixed = slerp(mixed, tensor, weight / so_far)
    return mixed


def trim(difference: Tensor, density: float) -> Tensor:
    """The `density` share of the numbers that are largest in size, the others 0; of equals the first stay."""
    flat = difference.reshape(-1)
    kept = round(density * flat.numel())
    order = flat.abs().argsort(descending=True, stable=True)
    trimmed = torch.zeros_like(flat)
    trimmed[order[:kept]] = flat[order[:kept]]
    return trimmed.reshape(difference.shape)


def drop(difference: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each number with chance `density`, divided by it, else 0: the expectation stays."""
    kept = torch.rand(difference.shape, generator=generator, dtype=torch.float64) < density
    return torch.where(kept, difference / density, 0.0)


def agreed_mean(differences: Sequence[Tensor]) -> Tensor:
    """For each number the mean of those, not 0, whose sign is that of the sum; 0 where there are none."""
    sign = reduce(torch.add, differences).sign()
    agree = [(one.sign() == sign) & (sign != 0) for one in differences]
    total = reduce(
        torch.add, [torch.where(yes, one, 0.0) for yes, one in zip(agree, differences, strict=True)]
    )
    count = reduce(torch.add, [yes.to(torch.float64) for yes in agree])
    return total / count.clamp(min=1)


def add_differences(
    base: Tensor,
    tensors: Sequence[Tensor],
    scale: float,
    change: Callable[[Tensor, int], Tensor],
    combine: Callable[[Sequence[Tensor]], Tensor],
) -> Tensor:
    """base + scale · combine(change(θ - base, number))."""
    changed = [change(tensor - base, number) for number, tensor in enumerate(tensors)]
    return base + scale * combine(changed)


def add_up(differences: Sequence[Tensor]) -> Tensor:
    """Their sum."""
    return reduce(torch.add, differences)
