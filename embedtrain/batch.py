"""The typed batches that travel from collate to the objective.

Dimensions: T texts, P tokens of all texts, B local queries, A all queries, C candidates, D dims of a vector,
K of the teacher's.
Suffixes on tensors name their dimensions: `ids_P`, `queries_BD`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Tokens of T texts end to end, without padding, on the CPU.

    `ids_P` int64 token ids, `lengths_T` int64 tokens of each text, `first_T` int64 its first token that
    counts in the pool, 0 where all do.
    """

    ids_P: Tensor
    lengths_T: Tensor
    first_T: Tensor

    def __post_init__(self) -> None:
        if self.first_T.shape != self.lengths_T.shape:
            raise ValueError(
                f"TokenBatch.first_T has {len(self.first_T)} values, lengths_T has {len(self.lengths_T)}"
            )
        if len(self.ids_P) != self.num_tokens:
            raise ValueError(
                f"TokenBatch.ids_P has {len(self.ids_P)} tokens, lengths_T sum to {self.num_tokens}"
            )

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "TokenBatch":
        """Token ids text by text; all count in the pool."""
        lengths_T = torch.tensor([len(text) for text in texts], dtype=torch.int64)
        ids = [token for text in texts for token in text]
        return cls(torch.tensor(ids, dtype=torch.int64), lengths_T, torch.zeros_like(lengths_T))

    def __len__(self) -> int:
        return len(self.lengths_T)

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts."""
        return int(self.lengths_T.sum())

    @property
    def starts_T(self) -> Tensor:
        """Where each text begins."""
        return self.lengths_T.cumsum(0) - self.lengths_T

    @property
    def places_P(self) -> Tensor:
        """The place of each token in its text, from 0."""
        return torch.arange(len(self.ids_P)) - self.starts_T.repeat_interleave(self.lengths_T)

    def take(self, rows: Sequence[int] | Tensor) -> "TokenBatch":
        """The texts `rows`, in that order."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        lengths_T = self.lengths_T[index]
        shift_T = self.starts_T[index] - (lengths_T.cumsum(0) - lengths_T)
        places_P = torch.arange(int(lengths_T.sum())) + shift_T.repeat_interleave(lengths_T)
        return TokenBatch(self.ids_P[places_P], lengths_T, self.first_T[index])

    def chunks(self, max_tokens: int, *, padded: bool = False) -> Iterator[tuple[Tensor, "TokenBatch"]]:
        """Sorted by length, longest first: (positions in this batch, their texts).

        A chunk's tokens, or where `padded` its texts times the longest, stay within `max_tokens`; one text
        may exceed it alone.
        """
        order = torch.argsort(self.lengths_T, descending=True, stable=True)
        for part in cut_by_length(self.lengths_T[order].tolist(), max_tokens, padded=padded):
            yield order[part], self.take(order[part])


def cut_by_length(lengths: Sequence[int], max_tokens: int, *, padded: bool = False) -> Iterator[slice]:
    """Parts of texts sorted longest first, each within `max_tokens`; one text may exceed it alone.

    Where `padded`, a text counts as many tokens as the longest of its part.
    """
    start, size = 0, 0
    for place, length in enumerate(lengths):
        size += lengths[start] if padded else length
        if size > max_tokens and place > start:
            yield slice(start, place)
            start, size = place, length
    if lengths:
        yield slice(start, len(lengths))


def join(*batches: TokenBatch) -> TokenBatch:
    """The texts of all batches in order."""
    names = TokenBatch.__dataclass_fields__
    return TokenBatch(*(torch.cat([getattr(batch, name) for batch in batches]) for name in names))


@dataclass(frozen=True, slots=True)
class TeacherVectors:
    """A teacher's vectors of the same texts: `queries_NK` and `documents_CK`, K the teacher's dims."""

    queries_NK: Tensor
    documents_CK: Tensor


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """The local share of one global batch, before encoding.

    Texts: `queries` holds B texts, `documents` C texts. `query_index_B` int64 global index of each query in
    the batch, the same on any number of processes. For each candidate: `owner_C` int64 global index of its
    query, `is_positive_C` bool. Keys are int64 hashes of texts: `query_key_B`, `document_key_C`; those of
    class labels, 0 for none: `label_B`, `label_C`. `graded_score_B` float64, NaN for none. `teacher_scores`
    name -> float64 (C), NaN for none; `teacher_vectors` of all texts or None. `source` names the one source
    of the batch; `draw_seed` is hash(seed, step), the key of all draws in the objective.
    """

    queries: TokenBatch
    documents: TokenBatch
    query_index_B: Tensor
    query_key_B: Tensor
    label_B: Tensor
    graded_score_B: Tensor
    owner_C: Tensor
    is_positive_C: Tensor
    document_key_C: Tensor
    label_C: Tensor
    teacher_scores: Mapping[str, Tensor]
    teacher_vectors: TeacherVectors | None
    source: str
    draw_seed: int

    def __post_init__(self) -> None:
        check_sizes(self, {"B": len(self.queries), "C": len(self.documents)})
        owned = self.owner_C[self.is_positive_C]
        missing = ~torch.isin(self.query_index_B, owned)
        if bool(missing.any()):
            raise ValueError(
                f"ContrastiveBatch of source '{self.source}': {int(missing.sum())} of {len(missing)} "
                "queries have no positive"
            )


def join_batches(batches: Sequence[ContrastiveBatch]) -> ContrastiveBatch:
    """One batch of all, in order: parts of one step. Raises ValueError where only some have teachers."""
    if len(batches) == 1:
        return batches[0]
    sources = {batch.source for batch in batches}
    tensors = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ContrastiveBatch.__dataclass_fields__
        if name.endswith(("_B", "_C"))
    }
    scores = {
        name: torch.cat([batch.teacher_scores[name] for batch in batches])
        for name in batches[0].teacher_scores
    }
    return ContrastiveBatch(
        queries=join(*(batch.queries for batch in batches)),
        documents=join(*(batch.documents for batch in batches)),
        teacher_scores=scores,
        teacher_vectors=join_vectors([batch.teacher_vectors for batch in batches]),
        source=sources.pop() if len(sources) == 1 else "several",
        draw_seed=batches[0].draw_seed,
        **tensors,
    )


def join_vectors(vectors: Sequence[TeacherVectors | None]) -> TeacherVectors | None:
    """Those of all parts of a batch, in order; None where no part has any."""
    there = [one for one in vectors if one is not None]
    if not there:
        return None
    if len(there) < len(vectors):
        raise ValueError(
            f"{len(vectors) - len(there)} of {len(vectors)} parts of the batch have no teacher vectors"
        )
    return TeacherVectors(
        torch.cat([one.queries_NK for one in there]), torch.cat([one.documents_CK for one in there])
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the objective sees: queries and candidates of all processes; this one sums over `local_B`.

    `queries_AD` and `candidates_CD` are raw vectors with gradient, or all of length 1 where `normalized`;
    `cut` where they have fewer dims than the model's. `local_B` int64 are the positions of the local
    queries among all A. The other fields are the ContrastiveBatch's, gathered in rank order.
    """

    queries_AD: Tensor
    candidates_CD: Tensor
    local_B: Tensor
    query_index_A: Tensor
    query_key_A: Tensor
    label_A: Tensor
    graded_score_A: Tensor
    owner_C: Tensor
    is_positive_C: Tensor
    document_key_C: Tensor
    label_C: Tensor
    teacher_scores: Mapping[str, Tensor]
    teacher_vectors: TeacherVectors | None
    source: str
    draw_seed: int
    normalized: bool = False
    cut: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, {"A": self.queries_AD.shape[0], "C": self.candidates_CD.shape[0]})
        if self.queries_AD.shape[1] != self.candidates_CD.shape[1]:
            raise ValueError(
                f"Gathered: queries have {self.queries_AD.shape[1]} dims, "
                f"candidates {self.candidates_CD.shape[1]}"
            )

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.queries_AD.shape[1]

    @property
    def queries_BD(self) -> Tensor:
        """Vectors of the local queries."""
        return self.queries_AD[self.local_B]

    @property
    def query_index_B(self) -> Tensor:
        """Global indices of the local queries."""
        return self.query_index_A[self.local_B]

    @property
    def owner_position_C(self) -> Tensor:
        """Where each candidate's query stands among all A."""
        order_A = torch.argsort(self.query_index_A)
        return order_A[torch.searchsorted(self.query_index_A[order_A], self.owner_C)]

    def at_dim(self, dim: int) -> "Gathered":
        """The view of the first `dim` dims."""
        if not 1 <= dim <= self.dim:
            raise ValueError(f"dim {dim} is not within the model's 1..{self.dim}")
        if self.normalized:
            raise ValueError("at_dim cuts raw vectors, and these are normalised")
        return replace(
            self,
            queries_AD=self.queries_AD[:, :dim],
            candidates_CD=self.candidates_CD[:, :dim],
            cut=self.cut or dim < self.dim,
        )

    def rows(self, start: int, stop: int) -> "Gathered":
        """The same batch, with the local queries `start` to `stop` alone to sum over."""
        return replace(self, local_B=self.local_B[start:stop])

    def normalize(self) -> "Gathered":
        """Vectors of length 1, in float32 at least; what is normalised already stays."""
        if self.normalized:
            return self
        return replace(
            self, queries_AD=unit(self.queries_AD), candidates_CD=unit(self.candidates_CD), normalized=True
        )

    def as_teacher(self) -> "Gathered":
        """The batch with the teacher's vectors in the place of the model's."""
        if self.teacher_vectors is None:
            raise ValueError(f"the batch of source '{self.source}' has no teacher vectors")
        vectors = self.teacher_vectors
        return replace(
            self, queries_AD=vectors.queries_NK, candidates_CD=vectors.documents_CK, normalized=False
        )


def unit(x_ND: Tensor) -> Tensor:
    """Vectors of length 1, in float32 at least."""
    return F.normalize(x_ND if x_ND.dtype == torch.float64 else x_ND.float(), dim=-1)


def check_sizes(batch: ContrastiveBatch | Gathered, sizes: Mapping[str, int]) -> None:
    """Raise ValueError, naming the field and both sizes, where a per-text field has another length."""
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    fields |= {f"teacher_scores['{name}']_C": values for name, values in batch.teacher_scores.items()}
    if vectors := batch.teacher_vectors:
        queries = "A" if "A" in sizes else "B"
        fields[f"teacher_vectors.queries_{queries}"] = vectors.queries_NK
        fields["teacher_vectors.documents_C"] = vectors.documents_CK
    for name, value in fields.items():
        expected = sizes.get(name.rpartition("_")[2])
        if expected is not None and value.shape[0] != expected:
            raise ValueError(
                f"{type(batch).__name__}.{name} has {value.shape[0]} values, expected {expected}"
            )
