"""One look at every text of the rows: what the audit and the filters need to know, as arrays.

N rows of all sources end to end, P their positives, Q their negatives, M texts of one source, T texts of a
block, S numbers of a signature, U runs of words in the test data.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedtrain.data.audit.contamination import TestIndex
from embedtrain.data.audit.signatures import NUM_HASHES, sign, sign_rows
from embedtrain.data.audit.words import fold, hash_words
from embedtrain.data.rows import text_key
from embedtrain.data.store import RowStore
from embedtrain.show.progress import Bar, progress

# control characters but tab and line ends; the replacement character; a byte order mark inside
UNCLEAN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffd]")
BLOCK = 4096  # texts


@dataclass(frozen=True, slots=True, eq=False)
class TextFacts:
    """Of each text of a source: key in any case and white space, words, faults, a test text it touches."""

    key_M: np.ndarray
    num_words_M: np.ndarray
    unclean_M: np.ndarray
    test_text_M: np.ndarray
    signature_MS: np.ndarray | None
    seen_U: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """What is known of the rows of all sources, in order; source i's rows stand at `bounds[i:i + 2]`."""

    sources: tuple[str, ...]
    stores: tuple[RowStore, ...]
    bounds: np.ndarray
    query_key_N: np.ndarray
    query_words_N: np.ndarray
    positive_starts: np.ndarray
    positive_key_P: np.ndarray
    positive_words_P: np.ndarray
    negative_starts: np.ndarray
    negative_key_Q: np.ndarray
    unclean_N: np.ndarray
    wordless_N: np.ndarray
    test_text_N: np.ndarray
    signature_NS: np.ndarray | None
    test: TestIndex | None
    seen: tuple[np.ndarray, ...]  # by source, which runs of the test data (bool U) were seen

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def place(self, row: int) -> tuple[str, RowStore, int]:
        """The source, its store and the row's number there."""
        number = int(np.searchsorted(self.bounds, row, side="right")) - 1
        return self.sources[number], self.stores[number], row - int(self.bounds[number])

    @property
    def positive_row_P(self) -> np.ndarray:
        """The row of each positive."""
        return np.repeat(np.arange(len(self)), np.diff(self.positive_starts))

    @property
    def negative_row_Q(self) -> np.ndarray:
        """The row of each negative."""
        return np.repeat(np.arange(len(self)), np.diff(self.negative_starts))


def examine(
    stores: Mapping[str, RowStore], *, test: TestIndex | None = None, scratch: Path | None = None
) -> Examined:
    """Read each distinct text once. With `scratch`, signatures for near duplicates are kept in that folder.

    Memory: about 100 bytes a row and 30 a text; signatures (4 * S bytes a text and a row) stay on disk.
    """
    bounds = np.cumsum([0, *(len(store) for store in stores.values())], dtype=np.int64)
    signature_NS = None if scratch is None else open_signatures(scratch / "rows", int(bounds[-1]))
    parts: list[dict[str, np.ndarray]] = []
    for number, (name, store) in enumerate(stores.items()):
        facts = scan_texts(name, store, test, None if scratch is None else scratch / "texts")
        if signature_NS is not None and facts.signature_MS is not None:
            sign_rows(store, facts.signature_MS, signature_NS[bounds[number] : bounds[number + 1]])
        parts.append(row_facts(store, facts))
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0] if key != "seen"}
    return Examined(
        sources=tuple(stores),
        stores=tuple(stores.values()),
        bounds=bounds,
        positive_starts=starts_of(joined.pop("num_positives_N")),
        negative_starts=starts_of(joined.pop("num_negatives_N")),
        signature_NS=signature_NS,
        test=test,
        seen=tuple(part["seen"] for part in parts),
        **joined,
    )


def open_signatures(path: Path, count: int) -> np.ndarray:
    """Room for `count` signatures on disk (uint32)."""
    return np.memmap(path, np.uint32, "w+", shape=(max(count, 1), NUM_HASHES))


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Where each group starts, and the end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def scan_texts(name: str, store: RowStore, test: TestIndex | None, signatures: Path | None) -> TextFacts:
    """What is known of each text that the store's rows use; zeros for the others."""
    count = len(store.keys_M)
    facts = TextFacts(
        key_M=np.zeros(count, np.int64),
        num_words_M=np.zeros(count, np.int32),
        unclean_M=np.zeros(count, bool),
        test_text_M=np.full(count, -1, np.int32),
        signature_MS=None if signatures is None else open_signatures(signatures, count),
        seen_U=np.zeros(0 if test is None else len(test.gram_U), bool),
    )
    used = np.unique(np.concatenate([store.query_N, store.positive_P, store.negative_Q]))
    with progress(f"audit {name}", total=len(used), unit="text") as bar:
        for ids_T in blocks(used, bar):
            scan_block(ids_T, store.texts(ids_T), test, facts)
    return facts


def blocks(ids: np.ndarray, bar: Bar) -> Iterator[np.ndarray]:
    """The ids, so many at a time; a block is counted once it is done with."""
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        yield block
        bar.advance(len(block))


def scan_block(ids_T: np.ndarray, texts: list[str], test: TestIndex | None, facts: TextFacts) -> None:
    """Fill in what is known of these texts."""
    words = hash_words(texts)
    facts.key_M[ids_T] = [text_key(fold(text)) for text in texts]
    facts.num_words_M[ids_T] = words.counts_T
    facts.unclean_M[ids_T] = [UNCLEAN.search(text) is not None for text in texts]
    if test is not None:
        facts.test_text_M[ids_T], seen = test.look_up(words)
        facts.seen_U[seen] = True
    if facts.signature_MS is not None:
        facts.signature_MS[ids_T] = sign(words)


def row_facts(store: RowStore, facts: TextFacts) -> dict[str, np.ndarray]:
    """The texts' facts as facts of the rows: a row has a fault where one of its texts has it."""
    num_positives_N, num_negatives_N = np.diff(store.positive_starts), np.diff(store.negative_starts)

    def worst_N(values_M: np.ndarray) -> np.ndarray:
        worst = values_M[store.query_N].copy()
        for counts_N, ids in ((num_positives_N, store.positive_P), (num_negatives_N, store.negative_Q)):
            np.maximum.at(worst, np.repeat(np.arange(len(store)), counts_N), values_M[ids])
        return worst

    return {
        "num_positives_N": num_positives_N,
        "num_negatives_N": num_negatives_N,
        "query_key_N": facts.key_M[store.query_N],
        "query_words_N": facts.num_words_M[store.query_N],
        "positive_key_P": facts.key_M[store.positive_P],
        "positive_words_P": facts.num_words_M[store.positive_P],
        "negative_key_Q": facts.key_M[store.negative_Q],
        "unclean_N": worst_N(facts.unclean_M),
        "wordless_N": worst_N(facts.num_words_M == 0),
        "test_text_N": worst_N(facts.test_text_M),
        "seen": facts.seen_U,
    }
