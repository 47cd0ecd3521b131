"""Exact nearest documents by the signs of their vectors: the fewest bits that differ (Hamming distance).

Dimensions: Q queries, N documents, C documents of a chunk, D dims of a vector.
"""

import numpy as np
import torch

from embedtrain.search.exact import DOCUMENT_CHUNK, Ranking, best, check

QUERY_CHUNK = 512


def search_signs(queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
    """The min(k, N) documents of most equal signs: 1 - 2 * distance / D is the score; ties by lower id.

    A dim above 0 is one bit, any other the other. Products of signs are whole numbers, exact in float32.
    """
    check(queries, documents, k)
    blocks = [
        search_block(queries[start : start + QUERY_CHUNK], documents, k)
        for start in range(0, len(queries), QUERY_CHUNK)
    ]
    if not blocks:
        width = min(k, len(documents))
        return np.empty((0, width), np.int64), np.empty((0, width), np.float64)
    ids, agreement = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return ids, agreement / documents.shape[1]


def search_block(queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
    """The same for a few queries; scores are whole numbers: D - 2 * distance."""
    asked_QD = signs(queries)
    ids, scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float64)
    for start in range(0, len(documents), DOCUMENT_CHUNK):
        product_QC = (asked_QD @ signs(documents[start : start + DOCUMENT_CHUNK]).T).double()
        width = product_QC.shape[1]
        keys_QC = product_QC * width - torch.arange(width)  # the score first, then the lower id: never equal
        near_QK = keys_QC.topk(min(k, width), dim=1, sorted=False).indices
        ids = np.hstack([ids, near_QK.numpy() + start])
        scores = np.hstack([scores, product_QC.gather(1, near_QK).numpy()])
        ids, scores = best(ids, scores, k)
    return ids, scores


def signs(vectors: np.ndarray) -> torch.Tensor:
    """1 where a value is above 0, else -1; float32."""
    return torch.from_numpy(np.where(np.asarray(vectors) > 0, np.float32(1), np.float32(-1)))
