"""The largest numbers of tensors that are read in blocks: the rule of TIES, exact, and never a whole tensor.

The size of the last number that stays is found digit by digit: a float64 that is not negative orders as its
bits do, so four counts of sixteen bits each lead to it, and a fifth pass to the last of its equals.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

DIGIT_BITS = 16
NUM_DIGITS = 4
Blocks = Callable[[], Iterable[Sequence[Tensor]]]
"""Blocks of rows in order, once more whenever called: one tensor a checkpoint."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What stays: numbers above `size`, and those of that size that stand before `place`."""

    size: float
    place: int


@dataclass(slots=True)
class Search:
    """The way to one tensor's limit: the bits known so far, and how many numbers with them stay."""

    wanted: int
    bits: int = 0
    place: int = 0
    seen: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(1 << DIGIT_BITS, np.int64))

    def count(self, bits: np.ndarray, shift: int) -> None:
        """Count the next digit of those numbers that begin with the known bits."""
        known = bits[bits >> (shift + DIGIT_BITS) == self.bits] if shift + DIGIT_BITS < 64 else bits
        self.counts += np.bincount((known >> shift) & 0xFFFF, minlength=len(self.counts))

    def choose(self) -> None:
        """The digit that the last number to stay has; the highest where none stays."""
        down = np.cumsum(self.counts[::-1])
        steps = int(np.searchsorted(down, self.wanted))
        digit = len(self.counts) - 1 - steps
        self.wanted -= int(down[steps] - self.counts[digit])
        self.bits = (self.bits << DIGIT_BITS) | digit
        self.counts[:] = 0

    def locate(self, bits: np.ndarray) -> None:
        """Go on to the last of those equals that stay."""
        equals = np.flatnonzero(bits == self.bits)
        if 0 < self.wanted <= len(equals):
            self.place = self.seen + int(equals[self.wanted - 1]) + 1
        self.wanted -= len(equals)
        self.seen += len(bits)

    @property
    def limit(self) -> Limit:
        """What was found; no place where nothing is to stay."""
        if not self.place:
            return Limit(math.inf, 0)
        return Limit(float(np.int64(self.bits).view(np.float64)), self.place)


def find_limits(blocks: Blocks, wanted: Sequence[int]) -> list[Limit]:
    """Where to trim each tensor, so that `wanted` of its numbers stay: the largest, of equals the first."""
    searches = [Search(number) for number in wanted]
    for digit in reversed(range(NUM_DIGITS)):
        for block in blocks():
            for search, one in zip(searches, block, strict=True):
                search.count(size_bits(one), digit * DIGIT_BITS)
        for search in searches:
            search.choose()
    for block in blocks():
        for search, one in zip(searches, block, strict=True):
            search.locate(size_bits(one))
    return [search.limit for search in searches]


def size_bits(tensor: Tensor) -> np.ndarray:
    """The bits of each number's size, flat: as integers they have the order of the sizes."""
    return tensor.abs().reshape(-1).numpy().view(np.int64)


def trim(difference: Tensor, limit: Limit, place: int) -> Tensor:
    """The numbers within the limit, the others 0; `place` is that of the first number in its tensor."""
    size = difference.abs()
    places = torch.arange(place, place + difference.numel()).reshape(difference.shape)
    stays = (size > limit.size) | ((size == limit.size) & (places < limit.place))
    return torch.where(stays, difference, 0.0)
