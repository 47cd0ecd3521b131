"""Several retrievers' lists into one. Pure.

B rows, K documents a row that a retriever finds, L in the fused list; ids int64, -1 where a list is short.
"""

from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from embedtrain.config.retrievers import Concatenate, Fusion, ReciprocalRank

Line = tuple[np.ndarray, np.ndarray]
"""Ids of one row, best first, and the rank of each."""


def fuse(fusion: Fusion, found: Sequence[np.ndarray]) -> Line:
    """ids_BL int64 and ranks_BL int32, of each retriever's ids_BK; -1 and 0 where a row has fewer."""
    lines = [fuse_row(fusion, [ids[ids >= 0] for ids in row]) for row in zip(*found, strict=True)]
    width = max((len(ids) for ids, _ in lines), default=0)
    ids_BL = np.full((len(lines), width), -1, np.int64)
    ranks_BL = np.zeros((len(lines), width), np.int32)
    for number, (ids, ranks) in enumerate(lines):
        ids_BL[number, : len(ids)], ranks_BL[number, : len(ids)] = ids, ranks
    return ids_BL, ranks_BL


@singledispatch
def fuse_row(fusion: Fusion, lists: Sequence[np.ndarray]) -> Line:
    """The fused list of one row, from each retriever's ids, best first."""
    raise TypeError(f"no such fusion: {type(fusion).__name__}")


@fuse_row.register
def _(fusion: ReciprocalRank, lists: Sequence[np.ndarray]) -> Line:
    """By Σ 1 / (k + rank), the largest first, equal sums by lower id (Cormack, Clarke and Büttcher, 2009)."""
    ranks = np.concatenate([np.arange(1, len(ids) + 1) for ids in lists])
    distinct, places = np.unique(np.concatenate(lists), return_inverse=True)
    sums = np.bincount(places, weights=1.0 / (fusion.k + ranks), minlength=len(distinct))
    ids = distinct[np.lexsort((distinct, -sums))]
    return ids, np.arange(1, len(ids) + 1)


@fuse_row.register
def _(fusion: Concatenate, lists: Sequence[np.ndarray]) -> Line:
    """Each one's first, then each one's second …, with the rank in the retriever's own list."""
    ranks = np.concatenate([np.arange(1, len(ids) + 1) for ids in lists])
    order = np.argsort(ranks, kind="stable")
    ids, ranks = np.concatenate(lists)[order], ranks[order]
    if not fusion.deduplicate:
        return ids, ranks
    _, first = np.unique(ids, return_index=True)
    first.sort()
    return ids[first], ranks[first]


def rank_of_all(ids_L: np.ndarray, wanted_P: np.ndarray) -> int:
    """The place, from 1, by which all wanted documents were listed; 0 where one never is."""
    hit_PL = ids_L[None, :] == wanted_P[:, None]
    listed_P = hit_PL.any(axis=1)
    return int(hit_PL.argmax(axis=1).max(initial=-1)) + 1 if listed_P.all() else 0
