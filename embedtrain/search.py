"""Exact nearest documents, in chunks, and BM25.

Dimensions: Q queries, N documents, W candidates a query, K results a query, D dims of a vector.

A fast matrix product proposes candidates, one fixed float64 dot product ranks them. The product's rounding
error is bounded, so the candidates either hold the true nearest beyond doubt or the query is searched again
with more care. The result is that of a full float64 ranking, whatever the chunk sizes, threads or device.
"""

from collections.abc import Iterator, Sequence

import bm25s
import numpy as np
import torch

Ranking = tuple[np.ndarray, np.ndarray]
"""ids_QK int64 and scores_QK float64: best first, equal scores by lower id."""

MIN_SPARE = 64  # candidates beyond k that are kept at least, so that small k are rarely searched twice


def search(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    query_chunk: int = 1024,
    document_chunk: int = 16384,
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
    document_chunk: int = 16384,
    device: str = "cpu",
) -> Iterator[Ranking]:
    """`search`, yielding one ranking for every `query_chunk` queries, so that memory does not grow with Q."""
    _check(queries, documents, k)
    k = min(k, len(documents))
    longest = float(_norms(documents, document_chunk, "documents").max(initial=0.0)) or 1.0
    for start in range(0, len(queries), query_chunk):
        block = np.asarray(queries[start : start + query_chunk])
        yield _search_block(block, documents, k, longest, document_chunk, device, _precisions(device))


def dot(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """float64 dot products over the last axis, broadcast over the others: the one score of a pair.

    Each is summed in an order that depends on D alone, so a pair scores the same in any company.
    """
    return np.multiply(queries, documents, dtype=np.float64, order="C").sum(axis=-1)


def best(ids: np.ndarray, scores: np.ndarray, k: int) -> Ranking:
    """The k best of each line, best first, equal scores by lower id. Merges rankings of corpus shards too."""
    order = np.lexsort((ids, -scores), axis=-1)[..., :k]
    return np.take_along_axis(ids, order, axis=-1), np.take_along_axis(scores, order, axis=-1)


def bm25_search(
    queries: Sequence[str], documents: Sequence[str], k: int, *, stopwords: str | list[str] = "en"
) -> Ranking:
    """The min(k, N) documents with the largest BM25 score (Lucene's, k1 1.5, b 0.75) for each query.

    Documents without a word of the query score 0 and follow by id.
    """
    k = min(k, len(documents))
    if not queries or k <= 0:
        return np.empty((len(queries), max(k, 0)), np.int64), np.empty((len(queries), max(k, 0)), np.float64)
    words = bm25s.tokenize(list(documents), stopwords=stopwords, return_ids=False, show_progress=False)
    asked = bm25s.tokenize(list(queries), stopwords=stopwords, return_ids=False, show_progress=False)
    if not any(words):
        ranked = [_best_of_line(np.zeros(len(documents)), k)] * len(queries)
    else:
        index = bm25s.BM25()
        index.index(words, show_progress=False)
        ranked = [_best_of_line(_bm25_scores(index, line, len(documents)), k) for line in asked]
    return np.stack([ids for ids, _ in ranked]), np.stack([scores for _, scores in ranked])


def _bm25_scores(index: bm25s.BM25, words: list[str], num_documents: int) -> np.ndarray:
    if not any(word in index.vocab_dict for word in words):
        return np.zeros(num_documents)
    return index.get_scores(words).astype(np.float64)


def _best_of_line(scores: np.ndarray, k: int) -> Ranking:
    """`best` of one long line, without sorting all of it."""
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    ids = np.flatnonzero(scores >= threshold)
    return best(ids, scores[ids], k)


def _check(queries: np.ndarray, documents: np.ndarray, k: int) -> None:
    if k < 1:
        raise ValueError(f"search: k is {k}, expected at least 1")
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ValueError(
            f"search: queries have shape {queries.shape} and documents {documents.shape}, "
            "expected two matrices of the same number of columns"
        )


def _norms(vectors: np.ndarray, chunk: int, name: str) -> np.ndarray:
    """Length of each vector in float64; a vector that is not finite is an error."""
    norms = np.empty(len(vectors), np.float64)
    for start in range(0, len(vectors), chunk):
        part = np.asarray(vectors[start : start + chunk])
        norms[start : start + chunk] = np.sqrt(dot(part, part))
    if not np.isfinite(norms).all():
        raise ValueError(f"search: {name}[{int(np.flatnonzero(~np.isfinite(norms))[0])}] is not finite")
    return norms


def _search_block(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    longest: float,
    chunk: int,
    device: str,
    precisions: tuple[torch.dtype, ...],
) -> Ranking:
    """Each query through the fast product, those left in doubt through a finer one, the last by a scan."""
    norms = np.maximum(_norms(queries, chunk, "queries"), np.finfo(np.float64).tiny)
    directions = np.divide(queries, norms[:, None], dtype=np.float64)
    ids = np.zeros((len(queries), k), np.int64)
    scores = np.zeros((len(queries), k), np.float64)
    doubtful = np.arange(len(queries))
    for precision in precisions:
        if len(doubtful) == 0 or k == 0:
            return ids, scores
        near, sure = _candidates(directions[doubtful], documents, k, longest, chunk, precision, device)
        rows = doubtful[sure]
        ids[rows], scores[rows] = _rescore(queries[rows], documents, near[sure], k)
        doubtful = doubtful[~sure]
    for row in doubtful:
        ids[row], scores[row] = _scan(queries[row], documents, k, chunk)
    return ids, scores


def _precisions(device: str) -> tuple[torch.dtype, ...]:
    return (torch.float16, torch.float32) if device.startswith("cuda") else (torch.float32,)


def _error_bound(precision: torch.dtype, dim: int) -> float:
    """Bound on the rounding error of a product of two vectors of length at most 1.

    float32: one rounding for each product and sum, and a few for scaling. float16: two inputs, the output and
    split sums are rounded to 11 bits, the rest is float32; halved inputs below 6e-5 lose 3e-8 each.
    """
    single = (dim + 8) * 2.0**-24
    if precision == torch.float32:
        return single
    return single + 8 * 2.0**-11 + 2 * dim**0.5 * 2.0**-25


def _candidates(
    directions: np.ndarray,
    documents: np.ndarray,
    k: int,
    longest: float,
    chunk: int,
    precision: torch.dtype,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    """ids_QW of the running top 2k, and for which queries they hold all of the true top k.

    With error bound e, a true top-k document scores at least (k-th candidate) - 2e: where the last candidate
    is below that, nothing outside the candidates can belong to the top k.
    """
    width = min(max(2 * k, k + MIN_SPARE), len(documents))
    asked = torch.as_tensor(directions).to(device, precision)
    scores = torch.empty((len(asked), 0), dtype=precision, device=device)
    ids = torch.empty((len(asked), 0), dtype=torch.int64, device=device)
    for start in range(0, len(documents), chunk):
        part = documents[start : start + chunk]
        part = np.asarray(part, np.result_type(part, np.float32)) / longest
        product = asked @ torch.from_numpy(part).to(device, precision).T
        top, index = torch.topk(product, min(width, len(part)), dim=1, sorted=False)
        scores, ids = torch.cat([scores, top], dim=1), torch.cat([ids, index + start], dim=1)
        scores, index = torch.topk(scores, min(width, scores.shape[1]), dim=1)
        ids = torch.gather(ids, 1, index)
    if width == len(documents):
        return ids.cpu().numpy(), np.ones(len(asked), bool)
    gap = scores[:, k - 1].double() - scores[:, -1].double()
    return ids.cpu().numpy(), (gap > 2 * _error_bound(precision, documents.shape[1])).cpu().numpy()


def _rescore(queries: np.ndarray, documents: np.ndarray, ids: np.ndarray, k: int) -> Ranking:
    """The k best of the candidates ids_QW by their float64 scores, a few queries at a time."""
    scores = np.empty(ids.shape, np.float64)
    step = max(1, 2**22 // max(1, ids.shape[1] * documents.shape[1]))
    for start in range(0, len(ids), step):
        rows = slice(start, start + step)
        scores[rows] = dot(queries[rows, None, :], documents[ids[rows]])
    return best(ids, scores, k)


def _scan(query: np.ndarray, documents: np.ndarray, k: int, chunk: int) -> Ranking:
    """The k best of all documents for one query, in float64 throughout."""
    ids, scores = np.empty(0, np.int64), np.empty(0, np.float64)
    for start in range(0, len(documents), chunk):
        part = np.asarray(documents[start : start + chunk])
        ids = np.concatenate([ids, np.arange(start, start + len(part))])
        scores = np.concatenate([scores, dot(query[None, :], part)])
        ids, scores = best(ids, scores, k)
    return ids, scores
