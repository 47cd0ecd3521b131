"""Which rows are mined and which texts they are searched against. Pure.

N documents, M texts of a source's rows, Q mined rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.config.mining import Mine
from embedtrain.data.store import RowStore
from embedtrain.mining.given import Given


class Documents(Sequence[str]):
    """N texts left on disk: the numbers below M are texts of the rows, those from M on are given ones."""

    def __init__(self, number_N: np.ndarray, rows: RowStore, given: Given) -> None:
        """Nothing is read yet."""
        self.number_N, self.rows, self.given = number_N, rows, given

    def __len__(self) -> int:
        return len(self.number_N)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One text, or several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number, before = int(self.number_N[index]), self.rows.num_texts
        return self.rows.text(number) if number < before else self.given.texts[number - before]

    def keys(self) -> np.ndarray:
        """int64 `text_key` of each."""
        own_N = self.number_N < self.rows.num_texts
        keys_N = np.empty(len(self), np.int64)
        keys_N[own_N] = self.rows.keys_M[self.number_N[own_N]]
        keys_N[~own_N] = self.given.keys[self.number_N[~own_N] - self.rows.num_texts]
        return keys_N


def query_texts(rows: RowStore) -> Documents:
    """The query of each row, left on disk."""
    return Documents(rows.query_N, rows, Given())


@dataclass(frozen=True)
class Corpus:
    """The documents of one source, each text once: `keys_N` int64 and `texts`, by document id.

    The first `num_searched` can be found; those behind are the rows' own, which can only be scored.
    """

    keys_N: np.ndarray
    texts: Sequence[str]
    num_searched: int

    @cached_property
    def order_N(self) -> np.ndarray:
        """int64 ids by ascending key."""
        return np.argsort(self.keys_N, kind="stable")

    def ids(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """int64 document ids of keys that are in the corpus."""
        return self.order_N[np.searchsorted(self.keys_N, np.asarray(keys, np.int64), sorter=self.order_N)]


def draw_rows(num_rows: int, max_rows: int | None, seed: int, source: str) -> np.ndarray:
    """Row numbers to mine for, ascending: all, or `max_rows` drawn by seed and source name."""
    if max_rows is None or max_rows >= num_rows:
        return np.arange(num_rows)
    return np.sort(generator(seed, source, "rows").permutation(num_rows)[:max_rows])


def build_corpus(
    rows: RowStore, mined: np.ndarray, stage: Mine, given: Given, symmetric: bool, seed: int, source: str
) -> Corpus:
    """The mined rows' own texts, then those of other rows and the given ones, drawn up to `corpus_size`.

    Own texts are positives and stored negatives, of a symmetric source queries too. Where they are not to be
    searched, they stand behind the given ones, since their scores are asked for.
    """
    own_ids = own_texts(rows.take(mined), symmetric)
    first = own_ids if stage.own_texts else own_ids[:0]
    others = np.setdiff1d(own_texts(rows, symmetric), own_ids) if stage.own_texts else first
    taken = rows.keys_M[np.concatenate([first, others])]
    rest = np.concatenate([others, np.flatnonzero(~np.isin(given.keys, taken)) + rows.num_texts])
    if stage.corpus_size is not None and len(first) + len(rest) > stage.corpus_size:
        room = max(0, stage.corpus_size - len(first))
        rest = rest[np.sort(generator(seed, source, "corpus").permutation(len(rest))[:room])]
    searched = Documents(np.concatenate([first, rest]), rows, given)
    keys_N = searched.keys()
    behind = own_ids[~np.isin(rows.keys_M[own_ids], keys_N)]
    documents = Documents(np.concatenate([searched.number_N, behind]), rows, given)
    return Corpus(np.concatenate([keys_N, rows.keys_M[behind]]), documents, len(searched))


def own_texts(rows: RowStore, symmetric: bool) -> np.ndarray:
    """int64 ids of the rows' positives, negatives and, if symmetric, queries, each once, as first seen."""
    ids = np.concatenate([rows.positive_P, rows.negative_Q, rows.query_N if symmetric else rows.query_N[:0]])
    _, first = np.unique(ids, return_index=True)
    return np.asarray(ids[np.sort(first)])


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
