"""Rows to train on and rows held out, without a query or a positive in common.

N rows, M texts, P positives and Q negatives of all rows, G groups of rows that stay together.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedtrain.data.store import RowStore


def split_rows(store: RowStore, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending numbers of the rows to train on, and of those held out: drawn, about `share` of all.

    Rows with a text in common, each one's as query or as positive, are on the same side, and so are rows that
    others tie to each other. Some row is always left to train on.
    """
    group_N = groups(store)
    size_G = np.bincount(group_N)
    left, drawn_G = min(round(share * len(store)), len(store) - 1), np.zeros(len(size_G), dtype=bool)
    for group in np.random.default_rng(seed).permutation(len(size_G)):
        if size_G[group] <= left:
            drawn_G[group] = True
            left -= int(size_G[group])
    held_out_N = drawn_G[group_N]
    return np.flatnonzero(~held_out_N), np.flatnonzero(held_out_N)


def groups(store: RowStore) -> np.ndarray:
    """int64 N: each row's group, numbered from 0."""
    query_P = np.repeat(store.query_N, np.diff(store.positive_starts))
    ties = coo_array(
        (np.ones(len(query_P), np.int8), (query_P, store.positive_P)), shape=(store.num_texts,) * 2
    )
    _, text_group_M = connected_components(ties, directed=False)
    return np.unique(text_group_M[store.query_N], return_inverse=True)[1]


def num_refused(train: RowStore, held_out: RowStore) -> int:
    """How many rows to train on have a query or a positive of a row held out among their negatives."""
    sought_Q = np.isin(train.negative_Q, np.concatenate([held_out.query_N, held_out.positive_P]))
    row_Q = np.repeat(np.arange(len(train)), np.diff(train.negative_starts))
    return len(np.unique(row_Q[sought_Q]))
