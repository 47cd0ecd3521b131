"""Exact nearest documents, in chunks.

Dimensions: Q queries, N documents, C documents of a chunk, W candidates a query, K results a query, D dims of
a vector.

A fast matrix product proposes candidates, one fixed float64 dot product ranks them. The product's rounding
error is bounded, so the candidates either hold the true nearest beyond doubt or the query is searched again
with more care. The result is that of a full float64 ranking, whatever the chunk sizes, threads or device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

Ranking = tuple[np.ndarray, np.ndarray]
"""ids_QK int64 and scores_QK float64: best first, equal scores by lower id."""

MIN_SPARE = 64  # candidates beyond k that are kept at least, so that small k are rarely searched twice
RESCORED_VALUES = 2**19  # float64 products at a time: 4 MB, which stay in a cache


def search(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    *,
    query_chunk: int = 1024,
    document_chunk: int = 8192,
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
    document_chunk: int = 8192,
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
        asked = torch.as_tensor(directions[doubtful]).to(device, precision)
        near = _candidates(asked, documents, k, longest, chunk)
        rows = doubtful[near.sure_Q]
        ids[rows], scores[rows] = _rescore(queries[rows], documents, near.only_sure(), k)
        doubtful = doubtful[~near.sure_Q]
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


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the fast product proposes, best first."""

    ids_QW: np.ndarray
    num_close_Q: np.ndarray  # so many of the first may belong to the top k
    sure_Q: np.ndarray  # whether nothing else can

    def only_sure(self) -> "Candidates":
        """Without the queries that are in doubt."""
        return Candidates(self.ids_QW[self.sure_Q], self.num_close_Q[self.sure_Q], self.sure_Q[self.sure_Q])


def _candidates(
    asked_QD: torch.Tensor, documents: np.ndarray, k: int, longest: float, chunk: int
) -> Candidates:
    """The running top 2k of the fast product, in the precision and on the device of the queries.

    With error bound e, a true top-k document scores at least (k-th candidate) - 2e: where the last candidate
    is below that, nothing outside the candidates can belong to the top k.
    """
    width = min(max(2 * k, k + MIN_SPARE), len(documents))
    top = RunningTop(len(asked_QD), width, asked_QD)
    buffer = asked_QD.new_empty((min(chunk, len(documents)), len(asked_QD)))
    for start, part_CD in _scaled_parts(documents, longest, width, chunk):
        product_CQ = buffer[: len(part_CD)]
        torch.mm(part_CD.to(asked_QD), asked_QD.T, out=product_CQ)
        top.add(product_CQ, start)
    scores_QW, ids_QW = top.ranked()
    floor_Q = scores_QW[:, k - 1] - 2 * _error_bound(asked_QD.dtype, documents.shape[1])
    close_QW = scores_QW >= floor_Q[:, None]
    sure_Q = (~close_QW[:, -1]) | (width == len(documents))
    return Candidates(ids_QW.cpu().numpy(), close_QW.sum(dim=1).cpu().numpy(), sure_Q.cpu().numpy())


def _scaled_parts(
    documents: np.ndarray, longest: float, width: int, chunk: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Start and float32 rows of each chunk, over the longest length; each overwrites the one before.

    The first chunks are short: a bound on the top `width` is found early, and few documents pass it.
    """
    buffer = np.empty((min(chunk, len(documents)), documents.shape[1]), np.float32)
    start, size = 0, min(4 * width, chunk)
    while start < len(documents):
        part = documents[start : start + size]
        rows = buffer[: len(part)]
        np.divide(part, longest, out=rows, dtype=np.result_type(part, np.float32), casting="same_kind")
        yield start, torch.from_numpy(rows)
        start, size = start + size, min(2 * size, chunk)


class RunningTop:
    """The `width` best documents of each query, of those added so far."""

    def __init__(self, num_queries: int, width: int, like: torch.Tensor) -> None:
        """No documents yet; scores have the precision and device of `like`."""
        self.width = width
        self.scores_QW = like.new_empty((num_queries, 0))
        self.ids_QW = like.new_empty((num_queries, 0), dtype=torch.int64)

    def add(self, product_CQ: torch.Tensor, start: int) -> None:
        """Scores of documents `start` and following."""
        if self.scores_QW.shape[1] < self.width:
            new = torch.arange(start, start + len(product_CQ), device=product_CQ.device)
            scores, ids = product_CQ.T, new.expand(product_CQ.shape[1], -1)
        else:
            scores, ids = _passing(product_CQ, self.scores_QW.amin(dim=1), start)
        scores = torch.cat([self.scores_QW, scores], dim=1)
        ids = torch.cat([self.ids_QW, ids], dim=1)
        self.scores_QW, index = torch.topk(scores, min(self.width, scores.shape[1]), dim=1, sorted=False)
        self.ids_QW = torch.gather(ids, 1, index)

    def ranked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """float64 scores and ids, best first."""
        scores, index = torch.sort(self.scores_QW, dim=1, descending=True)
        return scores.double(), torch.gather(self.ids_QW, 1, index)


def _passing(
    product_CQ: torch.Tensor, floor_Q: torch.Tensor, start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores above each query's floor and their documents, a line a query, filled up with -inf."""
    num_queries = product_CQ.shape[1]
    flat = _above(product_CQ, floor_Q)
    query = flat % num_queries
    order = torch.argsort(query, stable=True)
    flat, query = flat[order], query[order]
    counts_Q = torch.bincount(query, minlength=num_queries)
    place = torch.arange(len(flat), device=flat.device) - (torch.cumsum(counts_Q, 0) - counts_Q)[query]
    scores = product_CQ.new_full((num_queries, int(counts_Q.max())), -torch.inf)
    ids = torch.zeros_like(scores, dtype=torch.int64)
    scores[query, place] = product_CQ.flatten()[flat]
    ids[query, place] = flat // num_queries + start
    return scores, ids


def _above(product_CQ: torch.Tensor, floor_Q: torch.Tensor) -> torch.Tensor:
    """Places in the flattened product that are above their query's floor; numpy finds few ones faster."""
    if product_CQ.device.type != "cpu":
        return (product_CQ > floor_Q).flatten().nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(np.greater(product_CQ.numpy(), floor_Q.numpy())))


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
