"""Spherical interpolation of whole tensors that are read in blocks: it takes their dot products and no more.

M checkpoints, R rows. A point on a great circle is a weighted sum of its ends, so all that must be known
before is the angle: one pass gives every dot product, a second the sum.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

PARALLEL = 1.0 - 1e-9
"""Cosine from which on two tensors count as parallel: there the great circle is a straight line."""


def add_gram(blocks: Iterable[Sequence[Tensor]], count: int) -> np.ndarray:
    """Dot products (M, M) of tensors that come in blocks of rows.

    Each row is summed by itself and rows are added in order, so that no bit depends on the blocks.
    """
    gram_MM = np.zeros((count, count))
    for tensors in blocks:
        rows = [tensor.reshape(len(tensor) if tensor.dim() else 1, -1).numpy() for tensor in tensors]
        for one in range(count):
            for other in range(one, count):
                dots_R = np.multiply(rows[one], rows[other]).sum(axis=1)
                total = np.cumsum(np.concatenate([gram_MM[one, other : other + 1], dots_R]))[-1]
                gram_MM[one, other] = gram_MM[other, one] = total
    return gram_MM


def slerp_shares(gram_MM: np.ndarray, weights: Sequence[float]) -> list[float]:
    """Factor of each tensor in their mix: each in turn, from the mix so far to the next.

    The way to the next is its share of the weight up to it.
    """
    shares, so_far = np.ones(1), weights[0]
    for number, weight in enumerate(weights[1:], start=1):
        so_far += weight
        mixed = float(shares @ gram_MM[:number, :number] @ shares)
        lengths = math.sqrt(max(0.0, mixed) * gram_MM[number, number])
        cosine = float(shares @ gram_MM[:number, number]) / lengths if lengths > 0 else 1.0
        stay, go = slerp_factors(cosine, weight / so_far)
        shares = np.append(stay * shares, go)
    return [float(share) for share in shares]


def slerp_factors(cosine: float, fraction: float) -> tuple[float, float]:
    """Factors of both ends at `fraction` of the way on the great circle of their directions.

    Lengths are not changed before: sin((1-t)Ω)/sin Ω and sin(tΩ)/sin Ω, Ω the angle between them (Shoemake
    1985). A straight line where they are parallel or opposite.
    """
    if abs(cosine) > PARALLEL:
        return 1 - fraction, fraction
    angle = math.acos(cosine)
    return math.sin((1 - fraction) * angle) / math.sin(angle), math.sin(fraction * angle) / math.sin(angle)
