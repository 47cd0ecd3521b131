"""Rows that came before: the same texts, or nearly the same.

N rows, P positives, K pairs of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embedtrain.data.audit.examined import Examined
from embedtrain.data.audit.signatures import SHINGLE_WORDS, candidate_pairs
from embedtrain.data.audit.words import MULTIPLIER, grams, hash_words
from embedtrain.data.store import RowStore
from embedtrain.show.progress import progress

NEAR = 0.8  # the overlap from which the audit calls rows near duplicates
PAIRS_BLOCK = 2048


def pair_keys(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One key (uint64) for each pair of int64 keys."""
    return first.view(np.uint64) * MULTIPLIER + second.view(np.uint64)


def exact_duplicates(examined: Examined, rows_N: np.ndarray) -> np.ndarray:
    """For each row an earlier one (int64 N), -1 for none: all of its (query, positive) pairs came before.

    Texts are compared in any case and white space. Only the rows of the mask `rows_N` count.
    """
    row_P = examined.positive_row_P
    row_P, positive_key_P = row_P[rows_N[row_P]], examined.positive_key_P[rows_N[row_P]]
    _, first_U, which_P = np.unique(
        pair_keys(examined.query_key_N[row_P], positive_key_P), return_index=True, return_inverse=True
    )
    first_row_P = row_P[first_U][which_P]
    earlier_N = np.full(len(examined), -1, dtype=np.int64)
    earlier_N[row_P] = first_row_P
    earlier_N[row_P[first_row_P == row_P]] = -1  # a pair of its own
    return earlier_N


def near_duplicates(examined: Examined, rows_N: np.ndarray, threshold: float = NEAR) -> np.ndarray:
    """For each row of the mask an earlier one that overlaps by `threshold` or more (int64 N), else -1.

    Overlap is the Jaccard index of the sets of neighbouring word pairs, counted exactly on the candidates
    that MinHash finds. Several questions about one document, or several answers to one question, are no near
    duplicates: where one side is the same text, the other alone must overlap by as much.
    """
    assert examined.signature_NS is not None, "examined without signatures"
    earlier_N = np.full(len(examined), -1, dtype=np.int64)
    pairs = candidate_pairs(examined.signature_NS, np.flatnonzero(rows_N), threshold)
    with progress("compare near duplicates", total=len(pairs), unit="pair") as bar:
        for start in range(0, len(pairs), PAIRS_BLOCK):
            block = pairs[start : start + PAIRS_BLOCK]
            near = [overlap >= threshold for overlap in overlaps(examined, block)]
            earlier, later = block[near][::-1].T  # ascending by `earlier`: the first is written last
            earlier_N[later] = np.where(earlier_N[later] < 0, earlier, earlier_N[later])
            bar.advance(len(block))
    return earlier_N


@dataclass(frozen=True, slots=True)
class Sides:
    """Sets of neighbouring word pairs of a row's query and of its positives."""

    query: frozenset[int]
    positives: frozenset[int]


def overlaps(examined: Examined, pairs: np.ndarray) -> Iterator[float]:
    """The overlap of each pair of rows."""
    sides = read_sides(examined, np.unique(pairs))
    for earlier, later in pairs.tolist():
        yield overlap(sides[earlier], sides[later])


def overlap(a: Sides, b: Sides) -> float:
    """Of both sides together; of the other side, where one is the same in both rows."""
    if a.query == b.query:
        return jaccard(a.positives, b.positives)
    if a.positives == b.positives:
        return jaccard(a.query, b.query)
    return jaccard(a.query | a.positives, b.query | b.positives)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Shared elements by all elements; 0 where both are empty."""
    return len(a & b) / max(len(a | b), 1)


def read_sides(examined: Examined, rows: np.ndarray) -> dict[int, Sides]:
    """The sets of the given rows, read again from their texts."""
    sides: dict[int, Sides] = {}
    for store, (first, last) in zip(examined.stores, pairwise(examined.bounds), strict=True):
        here = rows[(rows >= first) & (rows < last)]
        ids = [row_text_ids(store, row) for row in (here - first).tolist()]
        sets = iter(shingle_sets(store.texts(np.concatenate(ids)) if ids else []))
        for row, of_row in zip(here.tolist(), ids, strict=True):
            query = next(sets)
            sides[row] = Sides(query, frozenset().union(*(next(sets) for _ in of_row[1:])))
    return sides


def row_text_ids(store: RowStore, row: int) -> np.ndarray:
    """Ids of the query and the positives."""
    start, stop = store.positive_starts[row : row + 2]
    return np.concatenate([store.query_N[row : row + 1], store.positive_P[start:stop]])


def shingle_sets(texts: list[str]) -> list[frozenset[int]]:
    """The set of neighbouring word pairs of each text, hashed."""
    words = hash_words(texts)
    hashes_G, text_G = grams(words, SHINGLE_WORDS)
    ends = np.searchsorted(text_G, np.arange(len(words) + 1)).tolist()
    hashes = hashes_G.tolist()
    return [frozenset(hashes[start:stop]) for start, stop in pairwise(ends)]
