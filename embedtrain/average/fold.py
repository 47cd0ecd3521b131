"""Differences to a base as low-rank factors: the closest of a rank, and what is lost.

Dimensions: O outputs and I inputs of a linear layer, R rank.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from embedtrain.average.tensors import Tensors, check_same_tensors


@dataclass(frozen=True, slots=True)
class Folded:
    """One tensor: its difference as B·A, or left out; the norms of the difference and of what is missed."""

    name: str
    norm: float
    missed: float
    a_RI: Tensor | None = None
    b_OR: Tensor | None = None

    @property
    def error(self) -> float:
        """Relative Frobenius error; 0 where there is no difference."""
        return self.missed / self.norm if self.norm else 0.0


def fold(merged: Tensors, base: Tensors, layers: Collection[str], rank: int) -> Iterator[Folded]:
    """Every floating tensor, one at a time: the weights named in `layers` as factors, of others the loss."""
    check_same_tensors(merged, base)
    for name, info in merged.info.items():
        if info.dtype.is_floating_point:
            difference = merged.read(name).to(torch.float64) - base.read(name).to(torch.float64)
            yield fold_one(name, difference, rank) if name in layers else left_out(name, difference)


def fold_one(name: str, difference_OI: Tensor, rank: int) -> Folded:
    """The float32 factors whose product is the closest matrix of the rank (Eckart and Young 1936).

    The singular values are shared by both, so that both are of one size; a rank beyond the matrix's own is
    filled up with zeros. The error is that of the rounded factors.
    """
    u_OK, s_K, v_KI = torch.linalg.svd(difference_OI, full_matrices=False)
    root_K = s_K[:rank].sqrt()
    b_OR = widened(u_OK[:, :rank] * root_K, rank)
    a_RI = widened((root_K[:, None] * v_KI[:rank]).T, rank).T.contiguous()
    missed = difference_OI - b_OR.to(torch.float64) @ a_RI.to(torch.float64)
    return Folded(name, float(difference_OI.norm()), float(missed.norm()), a_RI, b_OR)


def widened(matrix: Tensor, columns: int) -> Tensor:
    """The matrix in float32 with so many columns, new ones zero."""
    return torch.nn.functional.pad(matrix.to(torch.float32), (0, columns - matrix.shape[1]))


def left_out(name: str, difference: Tensor) -> Folded:
    """A tensor that no adapter holds: all of its difference is lost."""
    norm = float(difference.norm())
    return Folded(name, norm, norm)


def overall_error(parts: Collection[Folded]) -> float:
    """Relative Frobenius error of all differences together."""
    norm = math.hypot(*(part.norm for part in parts))
    return math.hypot(*(part.missed for part in parts)) / norm if norm else 0.0
