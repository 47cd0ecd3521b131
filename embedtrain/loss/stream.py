"""A term over a few local queries at a time, so that memory does not grow with queries x candidates.

The gradient of each chunk is computed in the forward pass, while its scores are there, and added up in the
vectors' own precision, float32 at least. Exact to rounding, since a query's loss needs no other query's. The
idea is that of fused linear cross-entropy (Liger Kernel, Cut Your Losses) and Inf-CL, in plain torch.

A all queries, B local queries, C candidates, D dims.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedtrain.batch import Gathered

STREAM_ABOVE = 2**24
"""Scores of local queries and columns; above it they are made chunk by chunk."""
CHUNK = 2**22
"""Scores of a chunk: 16 MiB a matrix in float32, and about a dozen live at once."""

Direct = Callable[..., tuple[Tensor, Tensor]]
"""(gathered, *inputs) -> (sum over the local queries, count)."""


def stream(term: Direct, g: Gathered, width: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """`term(g, *inputs)`, in chunks of local queries where their scores, `width` a query, are too many.

    The vectors of `g` and `inputs` get their gradients, in one backward pass; whatever else the term holds
    must need none.
    """
    if len(g.local_B) * width <= STREAM_ABOVE:
        return term(g, *inputs)
    rows = max(1, CHUNK // width)
    total, count = _Streamed.apply(term, g, rows, g.queries_AD, g.candidates_CD, *inputs)
    return total, count


def like(x: Tensor, number: Tensor | float) -> Tensor:
    """The number as a scalar tensor of the dtype and device of `x`; its gradient stays."""
    return number.to(x) if isinstance(number, Tensor) else x.new_full((), number)


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, term: Direct, g: Gathered, rows: int, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        needed = ctx.needs_input_grad[3:]
        sums = [torch.zeros_like(x) if need else None for x, need in zip(inputs, needed, strict=True)]
        total = count = torch.zeros((), dtype=inputs[0].dtype, device=inputs[0].device)
        for start in range(0, len(g.local_B), rows):
            chunk = g.rows(start, start + rows)
            part, part_count, gradients = _differentiate(term, chunk, inputs, needed)
            total, count = total + part, count + part_count
            for gradient_sum, gradient in zip((s for s in sums if s is not None), gradients, strict=True):
                gradient_sum += gradient
        ctx.sums = sums
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The sums, scaled in place and handed over: a copy of them would be the largest thing alive."""
        if ctx.sums is None:
            raise RuntimeError("a streamed term is differentiated once; call it again for another backward")
        sums, ctx.sums = ctx.sums, None
        return (None, None, None, *(s if s is None else s.mul_(factor) for s in sums))


def _differentiate(
    term: Direct, g: Gathered, inputs: tuple[Tensor, ...], needed: tuple[bool, ...]
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Sum and count of the local queries of `g`, and the gradients of the inputs that need one."""
    leaves = [x.detach().requires_grad_(need) for x, need in zip(inputs, needed, strict=True)]
    with torch.enable_grad():
        part, count = term(replace(g, queries_AD=leaves[0], candidates_CD=leaves[1]), *leaves[2:])
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
    gradients = torch.autograd.grad(part, wanted, materialize_grads=True) if wanted else ()
    return part.detach(), count.detach(), gradients
