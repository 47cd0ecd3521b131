"""Exact nearest documents, in chunks.

Dimensions: Q queries, N documents, C documents of a chunk, W candidates a query, K results a query, D dims of
a vector.

A fast matrix product proposes candidates, one fixed float64 dot product ranks them. The product's rounding
error is bounded, so the candidates either hold the true nearest beyond doubt or the query is searched again
with more care. The result is that of a full float64 ranking, whatever the chunk sizes, threads or device.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from embedtrain.search.candidates import Candidates, propose

Ranking = tuple[np.ndarray, np.ndarray]
"""ids_QK int64 and scores_QK float64: best first, equal scores by lower id."""

DOCUMENT_CHUNK = 4096  # documents multiplied at a time
SINGLE = (torch.float32,)
PRECISIONS = {"cuda": (torch.float16, torch.float32)}  # of the fast products, in turn; else SINGLE
MIN_SHARE = 256  # queries that are worth a thread
RESCORED_VALUES = 2**19  # float64 products at a time: 4 MB, which stay in a cache


def search(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    query_chunk: int = 1024,
    document_chunk: int = DOCUMENT_CHUNK,
    device: str = "cpu",
) -> Ranking:
    """The min(k, N) documents with the largest dot product for each query.

    Either array may be a memory map; at most a chunk of it is copied.
    """
    found = list(
        search_chunks(
            queries, documents, k, query_chunk=query_chunk, document_chunk=document_chunk, device=device
        )
    )
    if not found:
        width = min(k, len(documents))
        return np.empty((0, width), np.int64), np.empty((0, width), np.float64)
    return np.concatenate([ids for ids, _ in found]), np.concatenate([scores for _, scores in found])


def search_chunks(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    query_chunk: int = 1024,
    document_chunk: int = DOCUMENT_CHUNK,
    device: str = "cpu",
) -> Iterator[Ranking]:
    """`search`, yielding one ranking for every `query_chunk` queries, so that memory does not grow with Q."""
    check(queries, documents, k)
    k = min(k, len(documents))
    longest = longest_vector(documents)
    for start in range(0, len(queries), query_chunk):
        block = queries[start : start + query_chunk]
        yield search_block(block, documents, k, longest, document_chunk=document_chunk, device=device)


def dot(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """float64 dot products over the last axis, broadcast over the others: the one score of a pair.

    Each is summed in an order that depends on D alone, so a pair scores the same in any company.
    """
    return np.multiply(queries, documents, dtype=np.float64, order="C").sum(axis=-1)


def best(ids: np.ndarray, scores: np.ndarray, k: int) -> Ranking:
    """The k best of each line, best first, equal scores by lower id. Merges rankings of corpus shards too."""
    order = np.lexsort((ids, -scores), axis=-1)[..., :k]
    return np.take_along_axis(ids, order, axis=-1), np.take_along_axis(scores, order, axis=-1)


def check(queries: np.ndarray, documents: np.ndarray, k: int) -> None:
    """ValueError where the matrices do not fit, or k is no number of documents."""
    if k < 1:
        raise ValueError(f"search: k is {k}, expected at least 1")
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ValueError(
            f"search: queries have shape {queries.shape} and documents {documents.shape}, "
            "expected two matrices of the same number of columns"
        )


def _norms(vectors: np.ndarray, name: str) -> np.ndarray:
    """Length of each vector in float64; a vector that is not finite is an error."""
    norms = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), DOCUMENT_CHUNK):
        part = np.asarray(vectors[start : start + DOCUMENT_CHUNK])
        norms[start : start + DOCUMENT_CHUNK] = np.sqrt(dot(part, part))
    if not np.isfinite(norms).all():
        raise ValueError(f"search: {name}[{int(np.flatnonzero(~np.isfinite(norms))[0])}] is not finite")
    return norms


def longest_vector(vectors: np.ndarray) -> float:
    """Length of the longest, 1 where all are zero; ValueError where one is not finite."""
    return float(_norms(vectors, "documents").max(initial=0.0)) or 1.0


def device_kind(device: str) -> str:
    """`cuda` of `cuda:1`."""
    return torch.device(device).type


def search_block(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    longest: float,
    *,
    document_chunk: int = DOCUMENT_CHUNK,
    device: str = "cpu",
) -> Ranking:
    """The k nearest documents (k <= N), no longer than `longest`; on a CPU the threads share the queries."""
    find = partial(
        _search_rows,
        documents=documents,
        k=k,
        longest=longest,
        chunk=document_chunk,
        device=device,
        precisions=PRECISIONS.get(device_kind(device), SINGLE),
    )
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    workers = min(threads, len(queries) // MIN_SHARE) if device == "cpu" else 1
    torch.set_float32_matmul_precision("highest")  # the bound on rounding rests on it
    try:
        if workers < 2:
            return find(np.asarray(queries))
        with ThreadPoolExecutor(workers, "search", torch.set_num_threads, (threads // workers,)) as pool:
            found = list(pool.map(find, np.array_split(queries, workers)))
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    return np.concatenate([ids for ids, _ in found]), np.concatenate([scores for _, scores in found])


def _search_rows(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    longest: float,
    chunk: int,
    device: str,
    precisions: tuple[torch.dtype, ...],
) -> Ranking:
    """Each query through the fast product, those left in doubt through a finer one, the last by a scan."""
    norms = np.maximum(_norms(queries, "queries"), np.finfo(np.float64).tiny)
    directions = np.divide(queries, norms[:, None], dtype=np.float64)
    ids = np.zeros((len(queries), k), np.int64)
    scores = np.zeros((len(queries), k), np.float64)
    doubtful = np.arange(len(queries))
    for precision in precisions:
        if len(doubtful) == 0 or k == 0:
            return ids, scores
        asked = torch.as_tensor(directions[doubtful]).to(device, precision)
        near = propose(asked, documents, k, longest, chunk)
        rows = doubtful[near.sure_Q]
        ids[rows], scores[rows] = _rescore(queries[rows], documents, near.only_sure(), k)
        doubtful = doubtful[~near.sure_Q]
    for row in doubtful:
        ids[row], scores[row] = _scan(queries[row], documents, k, chunk)
    return ids, scores


def _rescore(queries: np.ndarray, documents: np.ndarray, near: Candidates, k: int) -> Ranking:
    """The k best of the candidates by their float64 scores, a few queries at a time."""
    ids = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float64)
    step = max(1, RESCORED_VALUES // max(1, near.ids_QW.shape[1] * documents.shape[1]))
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        close = near.ids_QW[rows, : max(k, int(near.num_close_Q[rows].max()))]
        ids[rows], scores[rows] = best(close, dot(queries[rows, None, :], documents[close]), k)
    return ids, scores


def _scan(query: np.ndarray, documents: np.ndarray, k: int, chunk: int) -> Ranking:
    """The k best of all documents for one query, in float64 throughout."""
    ids, scores = np.empty(0, np.int64), np.empty(0, np.float64)
    for start in range(0, len(documents), chunk):
        part = np.asarray(documents[start : start + chunk])
        ids = np.concatenate([ids, np.arange(start, start + len(part))])
        scores = np.concatenate([scores, dot(query[None, :], part)])
        ids, scores = best(ids, scores, k)
    return ids, scores
