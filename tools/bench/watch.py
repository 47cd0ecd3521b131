"""What reaches the backbone in a step, whoever calls it.

T texts, L positions.
"""

from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Watch:
    """Counts what is looked up with a graph: each text passes once with one, recomputed or not.

    The embedding layer is watched: every trainer calls it, not all call the model as a module. Padding is
    told by its id, which no text holds: the model's, or 0, with which sentence-transformers joins columns.
    Calls without a graph are a first pass that is repeated. `ids`: keep the real ids too.
    """

    def __init__(self, backbone: Any, *, ids: bool, on: bool = True) -> None:
        self.pad_id = int(backbone.config.pad_token_id or 0)
        self.keep_ids = ids
        self.positions = 0
        self.repeated = 0
        self.squares = 0
        self.real: list[Tensor] = []
        self.ids: list[Tensor] = []
        self.handle = backbone.get_input_embeddings().register_forward_pre_hook(self.note) if on else None

    def note(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Sizes of one call; nothing here waits for the device unless ids are kept."""
        ids_TL = args[0]
        if not torch.is_grad_enabled():
            self.repeated += ids_TL.numel()
            return
        real_TL = (ids_TL != self.pad_id) & (ids_TL != 0)
        self.positions += ids_TL.numel()
        self.squares += ids_TL.numel() * ids_TL.shape[-1]
        self.real.append(real_TL.sum())
        if self.keep_ids:
            self.ids.append(ids_TL[real_TL].cpu())

    def figures(self) -> dict[str, int]:
        """Positions with padding, those `repeated` of them, real tokens; `squares` adds up row lengths."""
        real = sum(int(one) for one in self.real)
        return {
            "positions": self.positions,
            "repeated": self.repeated,
            "real_tokens": real,
            "squares": self.squares,
        }

    def histogram(self) -> np.ndarray:
        """How often each token id was seen."""
        return np.bincount(torch.cat(self.ids).numpy()) if self.ids else np.zeros(0, np.int64)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.handle is not None:
            self.handle.remove()
