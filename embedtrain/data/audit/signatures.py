"""MinHash signatures of rows, and the pairs of rows that they call alike (rensa; extra `audit`).

A text's set is its pairs of neighbouring words. S numbers a signature, M texts, N rows, K pairs of rows.
"""

from typing import TYPE_CHECKING

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.data.audit.words import MULTIPLIER, Words, grams

if TYPE_CHECKING:
    from embedtrain.data.store import RowStore

NUM_HASHES = 64
SEED = 1
SHINGLE_WORDS = 2
ROWS_BLOCK = 8192
RECALL = 0.98  # of the pairs that overlap by just the threshold


def sign(words: Words) -> np.ndarray:
    """Signatures (uint32, T x S) of the texts' pairs of words; a text of one word is its own pair."""
    try:
        from rensa import RMinHash
    except ImportError:
        raise UserError(
            "near duplicates are found with rensa, which is not installed: pip install 'embedtrain[audit]'"
        ) from None
    hashes_G, text_G = grams(words, SHINGLE_WORDS)
    starts = np.searchsorted(text_G, np.arange(len(words) + 1))
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes_G, starts, NUM_HASHES, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(words), NUM_HASHES)


def sign_rows(store: "RowStore", signature_MS: np.ndarray, signature_NS: np.ndarray) -> None:
    """Fill in the rows' signatures: of the union of their query's and positives' sets, the least number."""
    for start in range(0, len(store), ROWS_BLOCK):
        stop = min(start + ROWS_BLOCK, len(store))
        starts = store.positive_starts[start : stop + 1]
        of_positives = signature_MS[store.positive_P[starts[0] : starts[-1]]]
        least = np.minimum.reduceat(of_positives, starts[:-1] - starts[0], axis=0)
        signature_NS[start:stop] = np.minimum(least, signature_MS[store.query_N[start:stop]])


def band_size(threshold: float) -> int:
    """Numbers a band, as many as find a pair at the threshold with probability RECALL."""
    for size in (16, 8, 4, 2):
        if 1 - (1 - threshold**size) ** (NUM_HASHES // size) >= RECALL:
            return size
    return 1


def candidate_pairs(signature_NS: np.ndarray, rows: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs (earlier, later) of the given rows (ascending) that may overlap by `threshold` (int64, K x 2).

    Rows that agree in all numbers of a band fall together; each is paired with the first of them and with
    the one before it, so the work stays linear however many there are. Pairs whose signatures put them
    clearly below the threshold (by three standard errors) are left out.
    """
    size = band_size(threshold)
    bands = (signature_NS[:, first : first + size] for first in range(0, NUM_HASHES, size))
    pairs = np.unique(np.concatenate([pairs_of_band(band, rows) for band in bands]), axis=0)
    slack = 3 * (threshold * (1 - threshold) / NUM_HASHES) ** 0.5
    return pairs[estimate_overlap(signature_NS, pairs) >= threshold - slack]


def pairs_of_band(band_NR: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of rows with equal numbers: each with the first, and each with the one before it."""
    mixed = np.zeros(len(rows), dtype=np.uint64)
    for column in range(band_NR.shape[1]):
        mixed = (mixed ^ band_NR[rows, column].astype(np.uint64)) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    same = mixed[order][1:] == mixed[order][:-1]
    start = np.concatenate([[True], ~same])
    first = order[np.flatnonzero(start)[np.cumsum(start) - 1]]
    later = np.flatnonzero(same) + 1
    to_first = np.stack([first[later], order[later]], axis=1)
    to_last = np.stack([order[later - 1], order[later]], axis=1)
    return rows[np.concatenate([to_first, to_last])]


def estimate_overlap(signature_NS: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Jaccard overlap of each pair (K), with a standard error of at most 1 / (2 sqrt(S))."""
    estimate = np.zeros(len(pairs))
    for start in range(0, len(pairs), ROWS_BLOCK):
        earlier, later = pairs[start : start + ROWS_BLOCK].T
        estimate[start : start + ROWS_BLOCK] = (signature_NS[earlier] == signature_NS[later]).mean(axis=1)
    return estimate
