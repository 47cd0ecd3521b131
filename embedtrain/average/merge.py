"""Several checkpoints as one, block of rows by block of rows, by the method of a soup stage.

M checkpoints. Blocks depend on a tensor's shape alone, and no number on the blocks: the whole tensor at once
would give the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, singledispatch

import torch
from torch import Tensor

from embedtrain.average.methods import add_up, agreed_mean, draws, drop, weighted_sum
from embedtrain.average.slerp import add_gram, slerp_shares
from embedtrain.average.tensors import Tensors, check_same_tensors, tensors_by_rows
from embedtrain.average.trimming import find_limits, trim
from embedtrain.config.errors import UserError
from embedtrain.config.soups import Dare, Mean, Slerp, SoupMethod, TaskArithmetic, Ties

Block = tuple[Sequence[Tensor], Tensor]
"""float64 rows of a tensor: one a checkpoint, and those of the base or, without one, of the first."""
Mix = Callable[[Block, int], Tensor]
"""(a block, the place of its first number in the tensor) -> float64."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A tensor before it is mixed; `blocks` goes through it once more whenever called."""

    name: str
    num_numbers: int
    blocks: Callable[[], Iterator[Block]]


Prepare = Callable[[Whole], Mix]


def average(checkpoints: Sequence[Tensors]) -> Tensors:
    """The uniform average."""
    return merge(checkpoints, Mean(kind="mean"))


def merge(
    checkpoints: Sequence[Tensors], method: SoupMethod, *, base: Tensors | None = None, seed: int = 0
) -> Tensors:
    """The checkpoints as one: computed in float64, rounded once to the stored dtype.

    Methods on differences need `base`, with the same tensors in any precision. Tensors of integers or
    booleans must be equal and are kept. Raises UserError where names, shapes or dtypes differ.
    """
    if not checkpoints:
        raise UserError("an average needs at least one checkpoint")
    first = checkpoints[0]
    for other in checkpoints[1:]:
        check_same_tensors(first, other)
    if base:
        check_same_tensors(first, base, dtypes=False)
    prepare = mixing(method, len(checkpoints), seed)
    start = base or first

    def block(name: str, first_row: int, stop: int) -> Block:
        parts = [one.rows(name, first_row, stop).to(torch.float64) for one in checkpoints]
        return parts, start.rows(name, first_row, stop).to(torch.float64) if base else parts[0]

    @lru_cache(maxsize=1)  # blocks of one tensor follow each other
    def mix_of(name: str) -> Mix:
        info = first.info[name]
        return prepare(Whole(name, info.num_numbers, lambda: (block(name, *rows) for rows in info.blocks())))

    def read_rows(name: str, first_row: int, stop: int) -> Tensor:
        info = first.info[name]
        if not info.dtype.is_floating_point:
            return same_everywhere(checkpoints, name, first_row, stop)
        place = first_row * info.num_numbers // max(1, info.shape[0]) if info.shape else 0
        return mix_of(name)(block(name, first_row, stop), place).to(info.dtype)

    origin = f"{method.kind} of " + ", ".join(c.origin for c in checkpoints)
    return tensors_by_rows(origin, first.info, read_rows)


def same_everywhere(checkpoints: Sequence[Tensors], name: str, start: int, stop: int) -> Tensor:
    """Rows of a tensor that is not floating, if they are the same in all."""
    first = checkpoints[0].rows(name, start, stop)
    for other in checkpoints[1:]:
        if not torch.equal(first, other.rows(name, start, stop)):
            raise UserError(
                f"tensor '{name}' is {first.dtype} and differs between {checkpoints[0].origin} and "
                f"{other.origin}; only floating tensors are averaged"
            )
    return first


@singledispatch
def mixing(method: object, count: int, seed: int) -> Prepare:
    """How a method mixes the tensors of `count` checkpoints."""
    raise TypeError(f"no soup method {type(method).__name__}")


@mixing.register
def _(method: Mean, count: int, seed: int) -> Prepare:
    weights = method.weights or (1.0,) * count
    return lambda whole: lambda block, place: weighted_sum(block[0], weights) / sum(weights)


@mixing.register
def _(method: Slerp, count: int, seed: int) -> Prepare:
    weights = method.weights or (1.0,) * count

    def prepare(whole: Whole) -> Mix:
        shares = slerp_shares(add_gram((tensors for tensors, _ in whole.blocks()), count), weights)
        return lambda block, place: weighted_sum(block[0], shares)

    return prepare


@mixing.register
def _(method: TaskArithmetic, count: int, seed: int) -> Prepare:
    def mix(block: Block, place: int) -> Tensor:
        return block[1] + method.scale * add_up(differences(block))

    return lambda whole: mix


@mixing.register
def _(method: Ties, count: int, seed: int) -> Prepare:
    def prepare(whole: Whole) -> Mix:
        wanted = [round(method.density * whole.num_numbers)] * count
        limits = find_limits(lambda: map(differences, whole.blocks()), wanted)

        def mix(block: Block, place: int) -> Tensor:
            kept = [trim(*pair, place) for pair in zip(differences(block), limits, strict=True)]
            return block[1] + method.scale * agreed_mean(kept)

        return mix

    return prepare


@mixing.register
def _(method: Dare, count: int, seed: int) -> Prepare:
    combine = agreed_mean if method.elect_signs else add_up

    def prepare(whole: Whole) -> Mix:
        def mix(block: Block, place: int) -> Tensor:
            kept = [
                drop(one, method.density, draws(f"{seed}:{number}:{whole.name}", place, one.shape))
                for number, one in enumerate(differences(block))
            ]
            return block[1] + method.scale * combine(kept)

        return mix

    return prepare


def differences(block: Block) -> list[Tensor]:
    """What each checkpoint has more than the base."""
    tensors, base = block
    return [one - base for one in tensors]
