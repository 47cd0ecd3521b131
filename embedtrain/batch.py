"""The typed batches that travel from collate to the objective.

Dimensions: T texts, L tokens, B local queries, A all queries, C candidates, D dims of a vector.
Suffixes on tensors name their dimensions: `ids_TL`, `queries_BD`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Right-padded tokens of T texts.

    `ids_TL` int64 token ids, `mask_TL` bool real tokens, `pool_TL` bool tokens that count in the pool.
    """

    ids_TL: Tensor
    mask_TL: Tensor
    pool_TL: Tensor

    def __post_init__(self) -> None:
        for name in ("mask_TL", "pool_TL"):
            if getattr(self, name).shape != self.ids_TL.shape:
                raise ValueError(
                    f"TokenBatch.{name} has shape {tuple(getattr(self, name).shape)}, "
                    f"ids_TL has {tuple(self.ids_TL.shape)}"
                )

    def __len__(self) -> int:
        return self.ids_TL.shape[0]

    @property
    def lengths_T(self) -> Tensor:
        """Real tokens of each text."""
        return self.mask_TL.sum(dim=1)

    def take(self, rows: Sequence[int] | Tensor) -> "TokenBatch":
        """The texts `rows`, in that order, trimmed to their longest."""
        index = torch.as_tensor(rows, device=self.ids_TL.device)
        length = int(self.mask_TL[index].sum(dim=1).max()) if len(index) else 0
        return TokenBatch(
            self.ids_TL[index, :length], self.mask_TL[index, :length], self.pool_TL[index, :length]
        )

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on `device`."""
        return TokenBatch(
            *(t.to(device, non_blocking=True) for t in (self.ids_TL, self.mask_TL, self.pool_TL))
        )

    def chunks(self, max_tokens: int) -> Iterator[tuple[Tensor, "TokenBatch"]]:
        """Sorted by length, longest first: (positions in this batch, their trimmed texts).

        A chunk's padded size, texts times longest, stays within `max_tokens`; one text may exceed it alone.
        """
        order = torch.argsort(self.lengths_T, descending=True, stable=True)
        lengths = self.lengths_T[order].tolist()
        start = 0
        while start < len(order):
            size = max(1, max_tokens // max(1, lengths[start]))
            rows = order[start : start + size]
            yield rows, self.take(rows)
            start += size


def join(*batches: TokenBatch) -> TokenBatch:
    """The texts of all batches in order, padded to the longest."""
    length = max(batch.ids_TL.shape[1] for batch in batches)

    def cat(name: str) -> Tensor:
        tensors = [getattr(batch, name) for batch in batches]
        return torch.cat([F.pad(t, (0, length - t.shape[1])) for t in tensors])

    return TokenBatch(cat("ids_TL"), cat("mask_TL"), cat("pool_TL"))


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """The local share of one global batch, before encoding.

    Texts: `queries` holds B texts, `documents` C texts. `query_index_B` int64 global index of each query in
    the batch, the same on any number of processes. For each candidate: `owner_C` int64 global index of its
    query, `is_positive_C` bool. Keys are int64 hashes of texts: `query_key_B`, `document_key_C`. `source`
    names the one source of the batch; `draw_seed` is hash(seed, step), the key of all draws in the objective.
    """

    queries: TokenBatch
    documents: TokenBatch
    query_index_B: Tensor
    query_key_B: Tensor
    owner_C: Tensor
    is_positive_C: Tensor
    document_key_C: Tensor
    source: str
    draw_seed: int

    def __post_init__(self) -> None:
        check_sizes(self, len(self.queries), len(self.documents))
        owned = self.owner_C[self.is_positive_C]
        missing = ~torch.isin(self.query_index_B, owned)
        if bool(missing.any()):
            raise ValueError(
                f"ContrastiveBatch of source '{self.source}': {int(missing.sum())} of {len(missing)} "
                "queries have no positive"
            )


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the objective sees: local queries against the candidates of all processes.

    `queries_BD` and `candidates_CD` are raw, unnormalised vectors with gradient; candidates and all
    per-candidate fields are gathered over processes, per-query fields are local.
    """

    queries_BD: Tensor
    candidates_CD: Tensor
    query_index_B: Tensor
    query_key_B: Tensor
    owner_C: Tensor
    is_positive_C: Tensor
    document_key_C: Tensor
    source: str
    draw_seed: int

    def __post_init__(self) -> None:
        check_sizes(self, self.queries_BD.shape[0], self.candidates_CD.shape[0])
        if self.queries_BD.shape[1] != self.candidates_CD.shape[1]:
            raise ValueError(
                f"Gathered: queries have {self.queries_BD.shape[1]} dims, "
                f"candidates {self.candidates_CD.shape[1]}"
            )

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.queries_BD.shape[1]

    def at_dim(self, dim: int) -> "Gathered":
        """The view of the first `dim` dims."""
        if not 1 <= dim <= self.dim:
            raise ValueError(f"dim {dim} is not within the model's 1..{self.dim}")
        return replace(self, queries_BD=self.queries_BD[:, :dim], candidates_CD=self.candidates_CD[:, :dim])


def check_sizes(batch: ContrastiveBatch | Gathered, num_queries: int, num_candidates: int) -> None:
    """Raise ValueError, naming the field and both sizes, where a per-text field has another length."""
    for name in batch.__dataclass_fields__:
        expected = {"B": num_queries, "C": num_candidates}.get(name.rpartition("_")[2])
        value = getattr(batch, name)
        if expected is not None and value.shape[0] != expected:
            raise ValueError(
                f"{type(batch).__name__}.{name} has {value.shape[0]} values, expected {expected}"
            )
