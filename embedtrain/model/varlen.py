"""Attention kernels for texts end to end on a GPU: flash-attn where installed, else the one inside PyTorch.

Dimensions: T texts, P tokens of all texts, H heads, K heads of keys and values, E dims of a head.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, "Window", float | None], Tensor]
"""(q (P, H, E), k and v (P, K, E), starts int32 (T + 1), longest, window, scale) -> (P, H, E)."""
LARGEST_HEAD = 256
PACKAGES = {  # newest first: module, its function
    "flash-attn 4": ("flash_attn.cute.interface", "flash_attn_varlen_func"),
    "flash-attn 3": ("flash_attn_interface", "flash_attn_varlen_func"),
    "flash-attn 2": ("flash_attn", "flash_attn_varlen_func"),
}


@dataclass(frozen=True, slots=True)
class Window:
    """What a token sees of its text: not those after it where `causal`, and `reach` tokens to each side."""

    causal: bool
    reach: int | None = None

    def mask(self, length: int, device: torch.device) -> Tensor:
        """bool (length, length), true where a row's token sees a column's."""
        place = torch.arange(length, device=device)
        distance = place[:, None] - place
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.reach is not None:
            seen = distance.abs() <= self.reach
        return seen & (distance >= 0) if self.causal else seen

    @property
    def sides(self) -> tuple[int, int]:
        """As the kernels count: tokens to the left and to the right, -1 for all."""
        reach = -1 if self.reach is None else self.reach
        return reach, 0 if self.causal else reach


def varlen_kernel(device: str, dtype: torch.dtype, head_dim: int, dropout: float) -> Kernel | None:
    """The fastest kernel that fits; None where there is none, as `why_none` says."""
    if why_none(device, dtype, head_dim, dropout) is not None:
        return None
    return find_kernel()[1]


@cache
def why_none(device: str, dtype: torch.dtype, head_dim: int, dropout: float) -> str | None:
    """Why no kernel takes such tensors."""
    if device != "cuda":
        return f"the kernels are for GPUs, and the device is {device}"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"the kernels take bfloat16 or float16, not {str(dtype).removeprefix('torch.')}"
    if dropout:
        return "the kernels have no attention dropout"
    if head_dim > LARGEST_HEAD or head_dim % 8:
        return f"the kernels take heads of up to {LARGEST_HEAD} dims, a multiple of 8, not {head_dim}"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the kernels need a GPU of compute capability 8.0 or newer"
    if find_kernel()[1] is None:
        return f"torch {torch.__version__} has no varlen_attn with windows, and flash-attn is not installed"
    return None


@cache
def find_kernel() -> tuple[str, Kernel | None]:
    """Name and function of the best kernel installed."""
    for name, (module, function) in PACKAGES.items():
        try:
            return name, flash_attn(getattr(import_module(module), function))
        except (ImportError, AttributeError, OSError):
            continue
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return "none", None
    accepted = set(inspect.signature(varlen_attn).parameters)
    if not {"window_size", "scale"} <= accepted:
        return "none", None
    return f"torch {torch.__version__} varlen_attn", torch_varlen(varlen_attn, "enable_gqa" in accepted)


def flash_attn(function: Callable[..., Any]) -> Kernel:
    """The calls that versions 2, 3 and 4 have in common."""
    unlimited = None if "cute" in function.__module__ else -1

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, window: Window, scale: float | None
    ) -> Tensor:
        found = function(
            q,
            k,
            v,
            cu_seqlens_q=starts,
            cu_seqlens_k=starts,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            softmax_scale=scale,
            causal=window.causal,
            window_size=tuple(unlimited if side < 0 else side for side in window.sides),
        )
        return found[0] if isinstance(found, tuple) else found

    return kernel


def torch_varlen(function: Callable[..., Any], has_gqa: bool) -> Kernel:
    """PyTorch's own; before 2.12 it takes no fewer heads of keys than of queries."""

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int, window: Window, scale: float | None
    ) -> Tensor:
        options: dict[str, Any] = {"scale": scale, "window_size": window.sides}
        times = q.shape[1] // k.shape[1]
        if times > 1 and has_gqa:
            options["enable_gqa"] = True
        elif times > 1:
            k, v = (x.repeat_interleave(times, dim=1) for x in (k, v))
        found: Tensor = function(q, k, v, starts, starts, longest, longest, **options)
        return found

    return kernel
