"""How numbers of several checkpoints become one: pure functions, float64 in and out.

All tensors of a call have one shape; each number depends on those at its place alone.
"""

from collections.abc import Sequence
from functools import reduce
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

DRAWS = 4
"""Numbers that the generator makes at a time."""


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Σ w·θ. What has no weight is left out, so that a weight of 1 alone gives the very bytes."""
    terms = [weight * tensor for tensor, weight in zip(tensors, weights, strict=True) if weight]
    return reduce(torch.add, terms) if terms else torch.zeros_like(tensors[0])


def add_up(differences: Sequence[Tensor]) -> Tensor:
    """Their sum."""
    return reduce(torch.add, differences)


def agreed_mean(differences: Sequence[Tensor]) -> Tensor:
    """For each number the mean of those, not 0, whose sign is that of the sum; 0 where there are none."""
    sign = add_up(differences).sign()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for one in differences:
        agrees = (one.sign() == sign) & (sign != 0)
        total += torch.where(agrees, one, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def drop(difference: Tensor, density: float, chances: Tensor) -> Tensor:
    """Each number with chance `density`, divided by it, else 0: the expectation stays."""
    return torch.where(chances < density, difference / density, 0.0)


def draws(key: str, place: int, shape: Sequence[int]) -> Tensor:
    """Uniform random numbers from `place` on, of the stream that `key` names: the same in any blocks.

    The generator counts, so that any place is reached at once (Philox, Salmon et al. 2011).
    """
    digest = blake2b(key.encode(), digest_size=16).digest()
    generator = np.random.Philox(key=int.from_bytes(digest, "little")).advance(place // DRAWS)
    skipped = place % DRAWS
    drawn = np.random.Generator(generator).random(skipped + int(np.prod(shape, dtype=np.int64)))
    return torch.from_numpy(drawn[skipped:]).reshape(tuple(shape))
