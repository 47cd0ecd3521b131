"""Token states into one vector a text.

Dimensions: T texts, L tokens, D dims.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def pool(states_TLD: Tensor, mask_TL: Tensor, pool_TL: Tensor, pooling: str) -> Tensor:
    """One vector a text, in at least float32; a text without a pooled token becomes zeros."""
    if states_TLD.dtype in (torch.bfloat16, torch.float16):
        states_TLD = states_TLD.float()
    return POOLINGS[pooling](states_TLD, mask_TL, pool_TL)


def mean(states_TLD: Tensor, mask_TL: Tensor, pool_TL: Tensor) -> Tensor:
    """Mean of the pooled tokens."""
    return weighted_sum(states_TLD, pool_TL.to(states_TLD.dtype))


def weighted_mean(states_TLD: Tensor, mask_TL: Tensor, pool_TL: Tensor) -> Tensor:
    """Mean of the pooled tokens, each weighted by its position in the text, counted from 1 (SGPT)."""
    positions = torch.arange(1, pool_TL.shape[1] + 1, device=pool_TL.device, dtype=states_TLD.dtype)
    return weighted_sum(states_TLD, positions * pool_TL)


def weighted_sum(states_TLD: Tensor, weights_TL: Tensor) -> Tensor:
    """Sum of the states with weights brought to sum 1."""
    share_TL = weights_TL / weights_TL.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return torch.einsum("tld,tl->td", states_TLD, share_TL)


def last_token(states_TLD: Tensor, mask_TL: Tensor, pool_TL: Tensor) -> Tensor:
    """State of the last real token, wherever the padding stands."""
    positions = torch.arange(mask_TL.shape[1], device=mask_TL.device)
    return take_token(states_TLD, (positions * mask_TL).argmax(dim=1))


def cls(states_TLD: Tensor, mask_TL: Tensor, pool_TL: Tensor) -> Tensor:
    """State of the first real token."""
    return take_token(states_TLD, mask_TL.to(torch.uint8).argmax(dim=1))


def take_token(states_TLD: Tensor, index_T: Tensor) -> Tensor:
    """The state at one position of each text."""
    return states_TLD[torch.arange(len(states_TLD), device=states_TLD.device), index_T]


POOLINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "weighted_mean": weighted_mean,
    "last_token": last_token,
    "cls": cls,
}
