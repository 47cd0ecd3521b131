"""Which texts share a run of words with an evaluation set.

T texts, E runs of words in the test texts, U distinct ones, G runs in the texts looked at.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from embedtrain.data.audit.words import Words, grams, hash_words, split_words

NGRAM_WORDS = 10


@dataclass(frozen=True, slots=True)
class TestText:
    """One text of an evaluation set: the task's name, the side (query, document, text), the text."""

    __test__ = False  # no test case, whatever pytest makes of its name

    task: str
    side: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class TestIndex:
    """The runs of `num_words` words of all test texts; a shorter text counts as a whole."""

    __test__ = False

    texts: tuple[TestText, ...]
    num_words: int
    gram_U: np.ndarray  # sorted
    first_text_U: np.ndarray
    gram_E: np.ndarray  # place in gram_U
    text_E: np.ndarray
    short_T: np.ndarray  # texts with fewer words, which count as a whole

    def look_up(self, words: Words) -> tuple[np.ndarray, np.ndarray]:
        """(for each text a test text that it shares a run with, or -1 (int64 T); runs found, places in U)."""
        hashes_G, text_G = grams(words, self.num_words)
        found_T = np.full(len(words), -1, dtype=np.int64)
        if not len(self.gram_U) or not len(hashes_G):
            return found_T, np.zeros(0, dtype=np.int64)
        place_G = np.minimum(np.searchsorted(self.gram_U, hashes_G), len(self.gram_U) - 1)
        hit_G = self.gram_U[place_G] == hashes_G
        found_T[text_G[hit_G][::-1]] = self.first_text_U[place_G[hit_G]][::-1]  # a text's first run wins
        return found_T, np.unique(place_G[hit_G])

    def touched(self, seen_U: np.ndarray) -> np.ndarray:
        """Numbers of the test texts of which a run was seen."""
        return np.unique(self.text_E[seen_U[self.gram_E]])

    def count_texts(self) -> Counter[tuple[str, str]]:
        """Number of texts, by task and side."""
        return Counter((text.task, text.side) for text in self.texts)

    def count_touched(self, seen_U: np.ndarray, short: bool = False) -> Counter[tuple[str, str]]:
        """Number of texts of which a run was seen, by task and side; of the `short`, those seen whole."""
        touched = (self.texts[i] for i in self.touched(seen_U) if self.short_T[i] or not short)
        return Counter((text.task, text.side) for text in touched)


def index_test_texts(texts: Iterable[TestText], num_words: int) -> TestIndex:
    """The index of the texts' runs of `num_words` words."""
    known = tuple(texts)
    words = hash_words([text.text for text in known])
    hashes_E, text_E = grams(words, num_words)
    gram_U, first_E, gram_E = np.unique(hashes_E, return_index=True, return_inverse=True)
    short_T = words.counts_T < num_words
    return TestIndex(known, num_words, gram_U, text_E[first_E], gram_E, text_E, short_T)


def longest_shared_run(texts: Iterable[str], test_text: str) -> str:
    """The longest run of words that one of the texts has in common with the test text."""
    runs = [shared_run(split_words(text), split_words(test_text)) for text in texts]
    longest = max(runs, key=len)
    return " ".join(longest)


def shared_run(words: list[str], others: list[str]) -> list[str]:
    """The longest run of words in both."""
    match = SequenceMatcher(None, words, others, autojunk=False).find_longest_match()
    return words[match.a : match.a + match.size]
