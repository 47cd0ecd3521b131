"""The kernels' functions in plain loops, with the arguments and the answers of each package."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from embedtrain.model.varlen import Kernel, flash_attn, torch_varlen


def slow_attention(
    q: Tensor, k: Tensor, v: Tensor, starts: list[int], scale: float | None, window: tuple[int, int]
) -> Tensor:
    """Text by text, head by head, query by query; a side below 0 has no end."""
    times = q.shape[1] // k.shape[1]
    rows = []
    for start, end in pairwise(starts):
        for place in range(start, end):
            first = start if window[0] < 0 else max(start, place - window[0])
            last = end if window[1] < 0 else min(end, place + window[1] + 1)
            heads = []
            for head in range(q.shape[1]):
                keys, values = k[first:last, head // times], v[first:last, head // times]
                scores = (keys @ q[place, head]) * (q.shape[2] ** -0.5 if scale is None else scale)
                heads.append(scores.softmax(dim=0) @ values)
            rows.append(torch.stack(heads))
    return torch.stack(rows)


def check_shapes(q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int) -> None:
    """What every kernel asks for."""
    assert k.shape == v.shape
    assert (k.shape[0], k.shape[2]) == (q.shape[0], q.shape[2])
    assert starts.dtype == torch.int32
    assert starts.is_contiguous()
    assert starts[0] == 0
    assert starts[-1] == len(q)
    assert type(longest) is int
    assert longest == int(starts.diff().max())
    assert all(x.stride(-1) == 1 for x in (q, k, v)), "the kernels read a head's dims side by side"


def slow_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """As torch.nn.attention.varlen.varlen_attn."""
    check_shapes(query, key, value, cu_seq_q, max_q)
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert max_q == max_k
    assert enable_gqa == (query.shape[1] > key.shape[1])
    return slow_attention(query, key, value, cu_seq_q.tolist(), scale, window_size)


def slow_torch_without_gqa(*arguments: Any, scale: float | None, window_size: tuple[int, int]) -> Tensor:
    """As in torch 2.11."""
    return slow_torch(*arguments, scale=scale, window_size=window_size)


def slow_flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """As flash-attn 2: `causal` shuts the right side."""
    check_shapes(q, k, v, cu_seqlens_q, max_seqlen_q)
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    assert max_seqlen_q == max_seqlen_k
    left, right = window_size
    assert right == 0 or not causal
    return slow_attention(q, k, v, cu_seqlens_q.tolist(), softmax_scale, (left, 0 if causal else right))


def slow_flash_3(*arguments: Any, **options: Any) -> tuple[Tensor, None]:
    """As flash-attn 3, which gives the sums of exponentials too."""
    return slow_flash(*arguments, **options), None


def slow_flash_4(*arguments: Any, window_size: tuple[int | None, int | None], **options: Any) -> Any:
    """As flash-attn 4, where a side without an end is None."""
    assert not any(side is not None and side < 0 for side in window_size)
    open_sides = tuple(-1 if side is None else side for side in window_size)
    return slow_flash(*arguments, window_size=open_sides, **options), None


slow_flash_4.__module__ = "flash_attn.cute.interface"
KERNELS: dict[str, Kernel] = {
    "torch": torch_varlen(slow_torch, True),
    "torch 2.11": torch_varlen(slow_torch_without_gqa, False),
    "flash-attn 2": flash_attn(slow_flash),
    "flash-attn 3": flash_attn(slow_flash_3),
    "flash-attn 4": flash_attn(slow_flash_4),
}
