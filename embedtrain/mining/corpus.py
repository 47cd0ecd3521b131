"""Which rows are mined and which texts they are searched against. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.data.rows import Row, text_key


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
    rows: Sequence[Row], mined: np.ndarray, corpus_size: int | None, seed: int, source: str
) -> Corpus:
    """The positives of the mined rows, then of other rows drawn by the seed, up to `corpus_size` texts."""
    others = np.setdiff1d(np.arange(len(rows)), mined)
    texts: dict[int, str] = {}
    for number in mined:
        texts |= {text_key(text): text for text in rows[number].positives if text_key(text) not in texts}
    for number in generator(seed, source, "corpus").permutation(others):
        if corpus_size is not None and len(texts) >= corpus_size:
            break
        for text in rows[number].positives:
            texts.setdefault(text_key(text), text)
    return Corpus(np.fromiter(texts, np.int64, len(texts)), list(texts.values()))


def known_positives(rows: Sequence[Row], symmetric: bool) -> dict[int, set[int]]:
    """For each query key, the keys of every text that some row of the source calls its positive.

    In a symmetric source a positive's positives are its queries too.
    """
    known: dict[int, set[int]] = {}
    for row in rows:
        query = text_key(row.query)
        positives = {text_key(text) for text in row.positives}
        known.setdefault(query, set()).update(positives)
        if symmetric:
            for key in positives:
                known.setdefault(key, set()).add(query)
    return known


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the names alone."""
    return np.random.default_rng(int(hash_json([seed, *names])[:16], 16))
