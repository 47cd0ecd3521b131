"""What scores pairs of a query and a document: a cross-encoder, a causal LM, a reranker behind HTTP.

Dimensions: P pairs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embedtrain.config.errors import UserError
from embedtrain.model.encoder import CPU_TOKENS

Pair = tuple[str, str]
"""A query and a document."""


class Scorer(Protocol):
    """The higher the score, the more relevant the document."""

    def score(self, pairs: Sequence[Pair], tokens_per_batch: int) -> np.ndarray:
        """One finite float32 score a pair (P), in the order given."""
        ...


def score_by_length(
    lengths_P: np.ndarray, tokens_per_batch: int, score_batch: Callable[[np.ndarray], Tensor]
) -> np.ndarray:
    """float32 scores (P): `score_batch` gets the numbers of pairs of similar length, the longest first."""
    scores_P = np.zeros(len(lengths_P), np.float32)
    with torch.inference_mode():
        for numbers in batches(lengths_P, tokens_per_batch):
            scores_P[numbers] = score_batch(numbers).float().cpu().numpy()
    return scores_P


def fitting(tokens_per_batch: int, device: torch.device) -> int:
    """Tokens in a batch; on a CPU as few as its caches hold."""
    if device.type != "cpu":
        return tokens_per_batch
    return min(tokens_per_batch, CPU_TOKENS * torch.get_num_threads())


def batches(lengths_P: np.ndarray, tokens_per_batch: int) -> Iterator[np.ndarray]:
    """Numbers of the pairs, longest first; a batch's padded size stays within the budget, or is one pair."""
    order_P = np.argsort(-lengths_P, kind="stable")
    start = 0
    while start < len(order_P):
        longest = max(1, int(lengths_P[order_P[start]]))
        size = max(1, tokens_per_batch // longest)
        yield order_P[start : start + size]
        start += size


def require_finite(scores_P: np.ndarray, pairs: Sequence[Pair], name: str) -> np.ndarray:
    """The scores; UserError with the first pair whose score is NaN or infinite."""
    finite_P = np.isfinite(scores_P)
    if not finite_P.all():
        number = int(np.argmin(finite_P))
        query, document = pairs[number]
        raise UserError(
            f"{name}: its score is {scores_P[number]} for query {query[:80]!r} and document {document[:80]!r}"
        )
    return scores_P
