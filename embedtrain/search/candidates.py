"""Documents that may be the nearest, by one fast matrix product and a bound on its rounding error.

Dimensions: Q queries, C documents of a chunk, W candidates a query, K results a query, D dims of a vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

MIN_SPARE = 64  # candidates beyond k that are kept at least, so that small k are rarely searched twice


def error_bound(precision: torch.dtype, dim: int) -> float:
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


def propose(asked_QD: torch.Tensor, documents: np.ndarray, k: int, longest: float, chunk: int) -> Candidates:
    """The running top 2k of the fast product, in the precision and on the device of the queries.

    With error bound e, a true top-k document scores at least (k-th candidate) - 2e: where the last candidate
    is below that, nothing outside the candidates can belong to the top k.
    """
    width = min(max(2 * k, k + MIN_SPARE), len(documents))
    top = RunningTop(len(asked_QD), width, asked_QD)
    buffer = asked_QD.new_empty(len(asked_QD) * min(chunk, len(documents)))
    for start, part_CD in _scaled_parts(documents, longest, width, chunk):
        product_QC = buffer[: len(asked_QD) * len(part_CD)].view(len(asked_QD), -1)
        torch.mm(asked_QD, part_CD.to(asked_QD).T, out=product_QC)
        top.add(product_QC, start)
    scores_QW, ids_QW = top.ranked()
    floor_Q = scores_QW[:, k - 1] - 2 * error_bound(asked_QD.dtype, documents.shape[1])
    close_QW = scores_QW >= floor_Q[:, None]
    sure_Q = (~close_QW[:, -1]) | (width == len(documents))
    return Candidates(ids_QW.numpy(), close_QW.sum(dim=1).numpy(), sure_Q.numpy())


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

    def add(self, product_QC: torch.Tensor, start: int) -> None:
        """Scores of documents `start` and following."""
        if self.scores_QW.shape[1] < self.width:
            new = torch.arange(start, start + product_QC.shape[1], device=product_QC.device)
            scores, ids = product_QC, new.expand(len(product_QC), -1)
        else:
            scores, ids = _passing(product_QC, self.scores_QW.amin(dim=1, keepdim=True), start)
        scores = torch.cat([self.scores_QW, scores], dim=1)
        ids = torch.cat([self.ids_QW, ids], dim=1)
        self.scores_QW, index = torch.topk(scores, min(self.width, scores.shape[1]), dim=1, sorted=False)
        self.ids_QW = torch.gather(ids, 1, index)

    def ranked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """float64 scores and ids on the CPU, best first."""
        scores, index = torch.sort(self.scores_QW, dim=1, descending=True)
        return scores.cpu().double(), torch.gather(self.ids_QW, 1, index).cpu()


def _passing(
    product_QC: torch.Tensor, floor_Q1: torch.Tensor, start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores above each query's floor and their documents, a line a query, filled up with -inf."""
    num_queries, num_documents = product_QC.shape
    flat = _above(product_QC, floor_Q1)
    query = torch.div(flat, num_documents, rounding_mode="floor")
    counts_Q = torch.bincount(query, minlength=num_queries)
    width = int(counts_Q.max())
    first_Q = torch.arange(num_queries, device=flat.device) * width - (torch.cumsum(counts_Q, 0) - counts_Q)
    place = first_Q[query] + torch.arange(len(flat), device=flat.device)
    scores = product_QC.new_full((num_queries * width,), -torch.inf)
    ids = torch.zeros_like(scores, dtype=torch.int64)
    scores[place] = product_QC.view(-1)[flat]
    ids[place] = flat - query * num_documents + start
    return scores.view(num_queries, width), ids.view(num_queries, width)


def _above(product_QC: torch.Tensor, floor_Q1: torch.Tensor) -> torch.Tensor:
    """Places in the flattened product that are above their query's floor; numpy finds few ones faster."""
    if product_QC.device.type != "cpu":
        return (product_QC > floor_Q1).flatten().nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(np.greater(product_QC.numpy(), floor_Q1.numpy())))
