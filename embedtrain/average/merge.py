"""Several checkpoints as one, tensor by tensor, by the method of a soup stage."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from hashlib import blake2b

import torch
from torch import Tensor

from embedtrain.average.methods import (
    add_differences,
    add_up,
    agreed_mean,
    drop,
    mean,
    slerp_all,
    trim,
)
from embedtrain.average.tensors import Tensors, check_same_tensors
from embedtrain.config.errors import UserError
from embedtrain.config.soups import Dare, Mean, Slerp, SoupMethod, TaskArithmetic, Ties

Mix = Callable[[str, Sequence[Tensor], Tensor], Tensor]
"""(name, one float64 tensor a checkpoint, that of the base where there is one) -> float64."""


def average(checkpoints: Sequence[Tensors]) -> Tensors:
    """The uniform average."""
    return merge(checkpoints, Mean(kind="mean"))


def merge(
    checkpoints: Sequence[Tensors], method: SoupMethod, *, base: Tensors | None = None, seed: int = 0
) -> Tensors:
    """The checkpoints as one: computed in float64, rounded once to the stored dtype.

    Methods on differences need `base`, with the same tensors. Tensors of integers or booleans must be equal
    and are kept. Raises UserError where names, shapes or dtypes differ.
    """
    if not checkpoints:
        raise UserError("an average needs at least one checkpoint")
    first = checkpoints[0]
    for other in (*checkpoints[1:], *([base] if base else [])):
        check_same_tensors(first, other)
    mix = mixing(method, len(checkpoints), seed)
    origin = f"{method.kind} of " + ", ".join(c.origin for c in checkpoints)
    return Tensors(origin, first.info, lambda name: merge_one(checkpoints, base, mix, name))


def merge_one(checkpoints: Sequence[Tensors], base: Tensors | None, mix: Mix, name: str) -> Tensor:
    """One tensor."""
    first = checkpoints[0].read(name)
    if not first.dtype.is_floating_point:
        return same_everywhere(first, checkpoints, name)
    others = [other.read(name).to(torch.float64) for other in checkpoints[1:]]
    tensors = [first.to(torch.float64), *others]
    start = base.read(name).to(torch.float64) if base else tensors[0]
    return mix(name, tensors, start).to(first.dtype)


def same_everywhere(first: Tensor, checkpoints: Sequence[Tensors], name: str) -> Tensor:
    """A tensor that is not floating, if it is the same in all."""
    for other in checkpoints[1:]:
        if not torch.equal(first, other.read(name)):
            raise UserError(
                f"tensor '{name}' is {first.dtype} and differs between {checkpoints[0].origin} and "
                f"{other.origin}; only floating tensors are averaged"
            )
    return first


@singledispatch
def mixing(method: object, count: int, seed: int) -> Mix:
    """How a method mixes one tensor of `count` checkpoints."""
    raise TypeError(f"no soup method {type(method).__name__}")


@mixing.register
def _(method: Mean, count: int, seed: int) -> Mix:
    weights = method.weights or (1.0,) * count
    return lambda name, tensors, base: mean(tensors, weights)


@mixing.register
def _(method: Slerp, count: int, seed: int) -> Mix:
    weights = method.weights or (1.0,) * count
    return lambda name, tensors, base: slerp_all(tensors, weights)


@mixing.register
def _(method: TaskArithmetic, count: int, seed: int) -> Mix:
    def mix(name: str, tensors: Sequence[Tensor], base: Tensor) -> Tensor:
        return add_differences(base, tensors, method.scale, lambda one, number: one, add_up)

    return mix


@mixing.register
def _(method: Ties, count: int, seed: int) -> Mix:
    def mix(name: str, tensors: Sequence[Tensor], base: Tensor) -> Tensor:
        return add_differences(
            base, tensors, method.scale, lambda one, number: trim(one, method.density), agreed_mean
        )

    return mix


@mixing.register
def _(method: Dare, count: int, seed: int) -> Mix:
    combine = agreed_mean if method.elect_signs else add_up

    def mix(name: str, tensors: Sequence[Tensor], base: Tensor) -> Tensor:
        def thin(one: Tensor, number: int) -> Tensor:
            return drop(one, method.density, draws(seed, name, number))

        return add_differences(base, tensors, method.scale, thin, combine)

    return mix


def draws(seed: int, name: str, number: int) -> torch.Generator:
    """Random numbers of one tensor of one checkpoint, by seed, name and place alone."""
    digest = blake2b(f"{seed}:{number}:{name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
