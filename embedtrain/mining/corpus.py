"""Which rows are mined and which texts they are searched against. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.data.store import RowStore


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents of one source, each text once: `keys_N` int64 and `texts`, by document id."""

    keys_N: np.ndarray
    texts: list[str]

    def ids(self, keys: Sequence[int]) -> np.ndarray:
        """Document ids of keys that are in the corpus."""
        order = np.argsort(self.keys_N, kind="stable")
        return order[np.searchsorted(self.keys_N, np.asarray(keys, np.int64), sorter=order)]


def draw_rows(num_rows: int, max_rows: int | None, seed: int, source: str) -> np.ndarray:
    """Row numbers to mine for, ascending: all, or `max_rows` drawn by seed and source name."""
    if max_rows is None or max_rows >= num_rows:
        return np.arange(num_rows)
    return np.sort(generator(seed, source, "rows").permutation(num_rows)[:max_rows])


def build_corpus(
    rows: RowStore, mined: np.ndarray, corpus_size: int | None, seed: int, source: str
) -> Corpus:
    """The positives of the mined rows, then of other rows drawn by the seed, up to `corpus_size` texts."""
    others = generator(seed, source, "corpus").permutation(np.setdiff1d(np.arange(len(rows)), mined))
    ordered = rows.take(np.concatenate([mined, others]))
    _, first = np.unique(ordered.positive_P, return_index=True)
    first.sort()
    if corpus_size is not None:
        texts_before = np.searchsorted(first, ordered.positive_starts[:-1])
        full = len(mined) + int(np.searchsorted(texts_before[len(mined) :], corpus_size))
        first = first[first < ordered.positive_starts[full]]
    ids = ordered.positive_P[first]
    return Corpus(rows.keys_M[ids], rows.texts(ids))


def known_positives(rows: RowStore, query_Q: np.ndarray, symmetric: bool) -> list[list[int]]:
    """For each of Q queries, by text id, the keys of every text that some row calls its positive, ascending.

    In a symmetric source a positive's positives are its queries too.
    """
    owner, known = np.repeat(rows.query_N, np.diff(rows.positive_starts)), rows.positive_P
    if symmetric:
        owner, known = np.concatenate([owner, known]), np.concatenate([known, owner])
    wanted = np.isin(owner, query_Q)
    pairs = np.unique(np.stack([owner[wanted], rows.keys_M[known[wanted]]], axis=1), axis=0)
    starts, ends = (np.searchsorted(pairs[:, 0], query_Q, side) for side in ("left", "right"))
    return [pairs[start:end, 1].tolist() for start, end in zip(starts, ends, strict=True)]


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the names alone."""
    return np.random.default_rng(int(hash_json([seed, *names])[:16], 16))
