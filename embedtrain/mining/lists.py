"""Lists of numbers of different lengths, end to end, and the different texts of a corpus as numbers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True)
class Lists:
    """Q ascending lists of texts' numbers, int64; list i is `values[starts[i]:starts[i + 1]]`."""

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, owners: np.ndarray, values: np.ndarray, num_lists: int) -> Self:
        """From pairs (list, value) in any order; a pair that comes twice counts once."""
        order = np.lexsort((values, owners))
        owners, values = owners[order], values[order].astype(np.int64)
        again = (owners[1:] == owners[:-1]) & (values[1:] == values[:-1])
        fresh = np.append(np.ones(min(len(owners), 1), bool), ~again)
        return cls(values[fresh], np.searchsorted(owners[fresh], np.arange(num_lists + 1)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        return self.values[self.starts[number] : self.starts[number + 1]]

    def take(self, lines: np.ndarray) -> Self:
        """These lists in this order."""
        counts = np.diff(self.starts)[lines]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        shift = np.repeat(self.starts[:-1][lines] - starts[:-1], counts)
        return type(self)(self.values[np.arange(starts[-1]) + shift], starts)

    def joined(self, other: "Lists") -> Self:
        """What either has, list by list."""
        owners = np.concatenate([self.owners, other.owners])
        return self.of(owners, np.concatenate([self.values, other.values]), len(self))

    @property
    def owners(self) -> np.ndarray:
        """For each value, the number of its list."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def contain(self, asked_QK: np.ndarray, lines: np.ndarray, num_texts: int) -> np.ndarray:
        """Whether list `lines[q]` holds `asked_QK[q, k]`; neither a line nor a text below 0 is ever held."""
        known = self.owners * num_texts + self.values
        asked = lines[:, None] * num_texts + asked_QK
        places = np.searchsorted(known, asked)
        places[places == len(known)] = 0
        held = known[places] == asked if len(known) else np.zeros(asked.shape, bool)
        return held & (asked_QK >= 0) & (lines >= 0)[:, None]


@dataclass(frozen=True, slots=True)
class Texts:
    """U different texts of N documents: equal texts have one number, the place of their key in `keys_U`.

    `text_N` is each document's number, `first_U` the first document with a text.
    """

    keys_U: np.ndarray
    text_N: np.ndarray
    first_U: np.ndarray

    @classmethod
    def of(cls, keys_N: np.ndarray) -> Self:
        """From the documents' int64 keys."""
        keys_U, first_U, text_N = np.unique(keys_N, return_index=True, return_inverse=True)
        return cls(keys_U, text_N, first_U)

    def __len__(self) -> int:
        return len(self.keys_U)

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """The texts with these keys, -1 for those that no document has."""
        places = np.searchsorted(self.keys_U, keys)
        places[places == len(self)] = 0
        known = self.keys_U[places] == keys if len(self) else np.zeros(len(keys), bool)
        return np.where(known, places, -1)

    def of_documents(self, ids_QK: np.ndarray) -> np.ndarray:
        """The texts of these documents, -1 where the id is -1."""
        return np.where(ids_QK >= 0, self.text_N[ids_QK], -1) if len(self) else np.full(ids_QK.shape, -1)

    def lists(self, keys: Sequence[Sequence[int]]) -> Lists:
        """Lists of keys as lists of texts; keys that no document has are left out."""
        owners = np.repeat(np.arange(len(keys)), [len(line) for line in keys])
        flat = np.fromiter((key for line in keys for key in line), np.int64, len(owners))
        numbers = self.numbers(flat)
        return Lists.of(owners[numbers >= 0], numbers[numbers >= 0], len(keys))


def over_equal_texts(text_QK: np.ndarray, value_QK: np.ndarray, reduce: np.ufunc) -> np.ndarray:
    """For each place the values at all places of its line with the same text, reduced to one."""
    order_QK = np.argsort(text_QK, axis=1, kind="stable")
    sorted_QK = np.take_along_axis(text_QK, order_QK, axis=1)
    is_first = np.ones(text_QK.shape, bool)
    is_first[:, 1:] = sorted_QK[:, 1:] != sorted_QK[:, :-1]
    starts = np.flatnonzero(is_first.ravel())
    reduced_QK = np.empty_like(value_QK)
    if text_QK.size:
        groups = reduce.reduceat(np.take_along_axis(value_QK, order_QK, axis=1).ravel(), starts)
        spread = np.repeat(groups, np.diff(np.append(starts, text_QK.size)))
        np.put_along_axis(reduced_QK, order_QK, spread.reshape(text_QK.shape), axis=1)
    return reduced_QK
