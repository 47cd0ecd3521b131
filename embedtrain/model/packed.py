"""Texts end to end without padding, and attention that never leaves a text.

transformers' own attention lets packed texts see each other as soon as it is bidirectional. So a function
of ours is registered with it, under the name PACKED: where a call says which texts stand where, each text
attends to itself alone; where it says nothing, the call is transformers' padded `sdpa`.

Dimensions: T texts, P tokens of all texts, H heads, E dims of a head, D dims.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from embedtrain.batch import TokenBatch
from embedtrain.model.varlen import Window, varlen_kernel, why_none

PACKED = "embedtrain_packed"


@dataclass(frozen=True, slots=True)
class Spans:
    """Where texts stand: `starts` int32 (T + 1) on the device; runs of texts of one length on the host."""

    starts: Tensor
    groups: tuple[tuple[int, int], ...]  # (texts, tokens of each)
    longest: int

    def split(self, x: Tensor) -> Iterator[Tensor]:
        """The runs of a tensor (H, P, E), each (N, H, L, E)."""
        parts = x.split([num * length for num, length in self.groups], dim=1)
        for part, group in zip(parts, self.groups, strict=True):
            yield part.unflatten(1, group).transpose(0, 1)


def groups_of(batch: TokenBatch) -> tuple[tuple[int, int], ...]:
    """Texts of one length that follow each other, and their length."""
    return tuple((sum(1 for _ in run), length) for length, run in groupby(batch.lengths_T.tolist()))


def packed_states(
    backbone: nn.Module, batch: TokenBatch, groups: tuple[tuple[int, int], ...], device: torch.device
) -> Tensor:
    """Last states (P, D) of all tokens, each text seen alone."""
    starts = F.pad(batch.lengths_T.cumsum(0), (1, 0)).to(torch.int32)
    longest = max((length for _, length in groups), default=0)
    ids_P, places_P, starts = (copied(x, device) for x in (batch.ids_P, batch.places_P, starts))
    # a mask of four dims is handed through by every family: none is built of a pack's P x P
    mark = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    output = backbone(
        input_ids=ids_P[None],
        position_ids=places_P[None] + first_position(backbone),
        attention_mask=mark,
        spans=Spans(starts, groups, longest),
    )
    states: Tensor = output.last_hidden_state[0]
    return states


def padded_states(backbone: nn.Module, batch: TokenBatch, pad_id: int, device: torch.device) -> Tensor:
    """The same, each text in a row of its own, padded on the right to the longest."""
    width = int(batch.lengths_T.max())
    place_P = batch.places_P + width * torch.arange(len(batch)).repeat_interleave(batch.lengths_T)
    ids_TL = torch.full((len(batch), width), pad_id, dtype=torch.int64)
    ids_TL.view(-1)[place_P] = batch.ids_P
    mask_TL = None
    if len(place_P) < ids_TL.numel():
        mask_TL = torch.zeros_like(ids_TL).view(-1).index_fill(0, place_P, 1).view_as(ids_TL)
        mask_TL = copied(mask_TL, device)
    output = backbone(input_ids=copied(ids_TL, device), attention_mask=mask_TL)
    states: Tensor = output.last_hidden_state.flatten(0, 1)
    return states if mask_TL is None else states[copied(place_P, device)]


def first_position(backbone: nn.Module) -> int:
    """The position of a text's first token: RoBERTa counts from behind the padding id."""
    embeddings = getattr(backbone, "embeddings", None)
    if not hasattr(embeddings, "create_position_ids_from_input_ids"):
        return 0
    return int(embeddings.padding_idx) + 1  # type: ignore[union-attr]


def why_padded(backbone: PreTrainedModel, dtype: torch.dtype, device: str, training: bool) -> str | None:
    """Why texts are padded to one length, None where they are packed end to end."""
    config = backbone.config
    if config._attn_implementation != PACKED:
        return f"its attention is transformers' own '{config._attn_implementation}'"
    if device != "cuda":
        return None
    values = config.to_dict()
    dropout = values.get("attention_dropout") or values.get("attention_probs_dropout_prob") or 0.0
    head_dim = values.get("head_dim") or config.hidden_size // config.num_attention_heads
    return why_none(device, dtype, head_dim, dropout if training else 0.0)


def copied(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a GPU gets it from pinned memory, and nothing waits for the copy."""
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    spans: Spans | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: (1, H, P, E) to (1, P, H, E), or a padded batch as `sdpa` has it."""
    if spans is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout, scaling, **kwargs
        )
    causal = kwargs.get("is_causal")
    window = Window(
        causal=bool(module.is_causal if causal is None else causal),
        reach=None if sliding_window is None or sliding_window > spans.longest else sliding_window - 1,
    )
    device = query.device.type
    if torch.is_autocast_enabled(device):  # the rotation of queries and keys is float32
        query, key, value = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
    kernel = varlen_kernel(device, query.dtype, query.shape[-1], dropout)
    if kernel is None:
        return by_length(query, key, value, spans, window, dropout, scaling), None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return kernel(q, k, v, spans.starts, spans.longest, window, scaling)[None], None


def by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    window: Window,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Tensor:
    """The same by PyTorch's own attention, texts of one length at a time: on any device, in any precision."""
    parts = []
    for q, k, v in zip(*(spans.split(x[0]) for x in (query, key, value)), strict=True):
        mask = None if window.reach is None else window.mask(q.shape[2], q.device)
        found = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=window.causal and mask is None,
            scale=scaling,
            enable_gqa=k.shape[1] != q.shape[1],
        )
        parts.append(found.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None]


# known to transformers from here on; a padded call builds its mask as `sdpa` does
AttentionInterface.register(PACKED, attend)
AttentionMaskInterface.register(PACKED, sdpa_mask)
