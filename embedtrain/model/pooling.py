"""Token states into one vector a text, texts of one length at a time.

Dimensions: T texts, P tokens of all texts, N texts of one length, L tokens of each, D dims.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def pool(
    states_PD: Tensor, groups: Sequence[tuple[int, int]], first_T: Tensor | None, pooling: str
) -> Tensor:
    """One vector a text (T, D), in at least float32; a text without a pooled token becomes zeros.

    `groups` are the (texts, tokens of each) that follow each other; `first_T` the first pooled token of each
    text, None where all tokens count.
    """
    runs = states_PD.split([num * length for num, length in groups])
    firsts = [None] * len(groups) if first_T is None else first_T.split([num for num, _ in groups])
    vectors = [
        pool_run(run.unflatten(0, group), first_N, pooling)
        for run, group, first_N in zip(runs, groups, firsts, strict=True)
    ]
    return torch.cat(vectors) if vectors else widened(states_PD)


def pool_run(states_NLD: Tensor, first_N: Tensor | None, pooling: str) -> Tensor:
    """Vectors (N, D) of texts of one length."""
    states_NLD = widened(states_NLD)
    if states_NLD.shape[1] == 0:
        return states_NLD.sum(dim=1)
    return POOLINGS[pooling](states_NLD, first_N)


def widened(states: Tensor) -> Tensor:
    """In at least float32."""
    return states.float() if states.dtype in (torch.bfloat16, torch.float16) else states


def mean(states_NLD: Tensor, first_N: Tensor | None) -> Tensor:
    """Mean of the pooled tokens."""
    if first_N is None:
        return states_NLD.mean(dim=1)
    return weighted_sum(states_NLD, torch.ones_like(states_NLD[0, :, 0]), first_N)


def weighted_mean(states_NLD: Tensor, first_N: Tensor | None) -> Tensor:
    """Mean of the pooled tokens, each weighted by its position in the text, counted from 1 (SGPT)."""
    positions_L = torch.arange(1, states_NLD.shape[1] + 1, device=states_NLD.device, dtype=states_NLD.dtype)
    return weighted_sum(states_NLD, positions_L, first_N)


def weighted_sum(states_NLD: Tensor, weights_L: Tensor, first_N: Tensor | None) -> Tensor:
    """Sum of the pooled states with weights brought to sum 1."""
    weights_NL = weights_L.expand(states_NLD.shape[:2])
    if first_N is not None:
        places_L = torch.arange(len(weights_L), device=weights_L.device)
        weights_NL = weights_NL * (places_L >= first_N[:, None])
    share_NL = weights_NL / weights_NL.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return torch.einsum("tld,tl->td", states_NLD, share_NL)


def last_token(states_NLD: Tensor, first_N: Tensor | None) -> Tensor:
    """State of the last token."""
    return states_NLD[:, -1]


def cls(states_NLD: Tensor, first_N: Tensor | None) -> Tensor:
    """State of the first token."""
    return states_NLD[:, 0]


POOLINGS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "mean": mean,
    "weighted_mean": weighted_mean,
    "last_token": last_token,
    "cls": cls,
}
