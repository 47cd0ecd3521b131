"""Rows to train on and rows held out, without a query or a positive in common.

N rows, M texts, P positives and Q negatives of all rows, G groups of rows that stay together.
"""

import numpy as np

from embedtrain.data.store import RowStore


def split_rows(store: RowStore, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending numbers of the rows to train on, and of those held out: drawn, at most `share` of all.

    Rows with a text in common, each one's as query or as positive, are on the same side, and so are rows that
    others tie to each other. Texts are equal where their `text_key` is.
    """
    group_N, size_G = groups(store)
    left, drawn_G = round(share * len(store)), np.zeros(len(size_G), dtype=bool)
    for group in np.random.default_rng(seed).permutation(len(size_G)):
        if size_G[group] <= left:
            drawn_G[group] = True
            left -= int(size_G[group])
    held_out_N = drawn_G[group_N]
    return np.flatnonzero(~held_out_N), np.flatnonzero(held_out_N)


def groups(store: RowStore) -> tuple[np.ndarray, np.ndarray]:
    """(int64 N: each row's group, numbered from 0; int64 G: how many rows a group has)."""
    _, text_M = np.unique(store.keys_M, return_inverse=True)
    query_N, positive_P = text_M[store.query_N], text_M[store.positive_P]
    query_P = np.repeat(query_N, np.diff(store.positive_starts))
    parents = list(range(len(text_M)))
    for query, positive in zip(query_P.tolist(), positive_P.tolist(), strict=True):
        parents[root(parents, positive)] = root(parents, query)
    roots_N = [root(parents, query) for query in query_N.tolist()]
    _, group_N, size_G = np.unique(roots_N, return_inverse=True, return_counts=True)
    return group_N, size_G


def root(parents: list[int], node: int) -> int:
    """The text that stands for a text's group; the way to it becomes shorter."""
    while parents[node] != node:
        parents[node] = node = parents[parents[node]]
    return node


def num_refused(train: RowStore, held_out: RowStore) -> int:
    """How many rows to train on have a positive of a row held out among their negatives."""
    sought_Q = np.isin(train.keys_M[train.negative_Q], held_out.keys_M[held_out.positive_P])
    row_Q = np.repeat(np.arange(len(train)), np.diff(train.negative_starts))
    return len(np.unique(row_Q[sought_Q]))
