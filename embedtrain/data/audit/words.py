"""Texts into hashed words and hashed runs of words, many texts at once.

T texts, W words of all texts end to end, G runs ("grams") of words.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

# scripts that are written without spaces: each character is taken as a word
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that every place of a run has its own factor
REMEMBERED_WORDS = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Hashes of the words of T texts (uint64 W); text t's are `hashes[starts[t]:starts[t + 1]]`."""

    hashes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts_T(self) -> np.ndarray:
        """Words of each text."""
        return np.diff(self.starts)


def split_words(text: str) -> list[str]:
    """The words of a text, in any case and width; a character of a script without spaces is one."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def hash_words(texts: Sequence[str]) -> Words:
    """The hashed words of the texts, the same in every process."""
    split = [split_words(text) for text in texts]
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(words) for words in split], out=starts[1:])
    hashes = np.fromiter((hash_word(word) for words in split for word in words), np.uint64, starts[-1])
    return Words(hashes, starts)


@lru_cache(REMEMBERED_WORDS)
def hash_word(word: str) -> int:
    """64 bits of a word."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def grams(words: Words, num_words: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes (G,) of all runs of `num_words` words, the text (G,) of each).

    A text with fewer words has one run, the whole; a text without words has none.
    """
    counts_T = words.counts_T
    runs_T = np.where(counts_T > 0, np.maximum(counts_T - num_words + 1, 1), 0)
    text_G = np.repeat(np.arange(len(words)), runs_T)
    first_T = np.cumsum(runs_T) - runs_T
    place_G = np.arange(len(text_G)) - first_T[text_G] + words.starts[:-1][text_G]
    end_G = words.starts[1:][text_G]
    hashes_G = np.zeros(len(text_G), dtype=np.uint64)
    for offset in range(num_words - 1, -1, -1):
        inside_G = place_G + offset < end_G
        word_G = words.hashes[np.minimum(place_G + offset, end_G - 1)] if len(text_G) else hashes_G
        hashes_G = hashes_G * MULTIPLIER + np.where(inside_G, word_G, np.uint64(0))
    return hashes_G, text_G


def fold(text: str) -> str:
    """The text in any case, form and white space: what makes two texts the same to a reader."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
