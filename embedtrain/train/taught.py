"""Texts as tokens, each with its teacher's vector: all on disk, read as they are asked for.

Dimensions: W writings (a text of one side as the student sees it), N of them in a batch, L tokens, K dims of
the teacher's vectors.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedtrain.artifacts import read_json
from embedtrain.batch import TokenBatch
from embedtrain.data.store.arrays import Strings, open_array
from embedtrain.data.tokens.encode import Tokens
from embedtrain.model.tokens import as_batch
from embedtrain.vectors import Side

SIDES: tuple[Side, Side] = ("query", "document")
FACTS = "facts.json"
ARRAYS = {
    "ids": "<i4",  # tokens of all writings, end to end
    "lengths": "<i4",  # tokens of each
    "firsts": "<i4",  # its first token that is pooled
    "sides": "|i1",  # place in SIDES: which prompt the teacher had
    "rows": "<i8",  # its text among those of the side
    "held_out": "|i1",  # 1: to validate on, never trained
}
Lesson = tuple[TokenBatch, Tensor]
"""Tokens of N writings and the teacher's vectors of them, float32 (N, K)."""


class Written:
    """W writings in a folder, and the different texts of each side in the order of their numbers."""

    def __init__(self, folder: Path) -> None:
        """Map the files; nothing is read yet."""
        self.folder = folder
        self.arrays = {name: open_array(folder / f"{name}.npy") for name in ARRAYS}
        self.facts: dict[str, Any] = read_json(folder / FACTS)

    @property
    def lengths_W(self) -> np.ndarray:
        """Tokens of each writing."""
        return self.arrays["lengths"]

    @cached_property
    def starts_W(self) -> np.ndarray:
        """int64 (W): where each writing's tokens begin."""
        return np.cumsum(self.lengths_W, dtype=np.int64) - self.lengths_W

    @cached_property
    def training(self) -> np.ndarray:
        """int64 numbers of the writings to learn."""
        return np.flatnonzero(self.arrays["held_out"] == 0)

    @cached_property
    def held_out(self) -> np.ndarray:
        """int64 numbers of the writings to validate on."""
        return np.flatnonzero(self.arrays["held_out"] == 1)

    def texts(self, side: Side) -> Strings:
        """The different texts of a side."""
        return Strings(self.folder, side)

    def keys(self, side: Side) -> np.ndarray:
        """int64 `text_key` of each."""
        return open_array(self.folder / f"{side}_keys.npy")

    def tokens(self, places: np.ndarray) -> TokenBatch:
        """Tokens of writings by number."""
        lengths, ids = self.lengths_W[places], self.arrays["ids"]
        spans = zip(self.starts_W[places].tolist(), lengths.tolist(), strict=True)
        parts = [ids[start : start + length] for start, length in spans]
        flat = np.concatenate([np.empty(0, np.int32), *parts])
        return as_batch(
            Tokens(flat, lengths.astype(np.int64), self.arrays["firsts"][places].astype(np.int64))
        )


class Taught:
    """Writings with their vectors: `vectors` has a matrix (texts, K) for each side that has any text."""

    def __init__(self, written: Written, vectors: Mapping[Side, np.ndarray]) -> None:
        """Nothing is read yet."""
        self.written, self.vectors = written, vectors
        self.dim = int(next(iter(vectors.values())).shape[1])

    def lesson(self, places: np.ndarray) -> Lesson:
        """Writings by number, as a batch."""
        return self.written.tokens(places), torch.from_numpy(self.targets(places))

    def targets(self, places: np.ndarray) -> np.ndarray:
        """float32 (N, K): the teacher's vectors as it gives them."""
        sides, rows = self.written.arrays["sides"][places], self.written.arrays["rows"][places]
        targets_NK = np.empty((len(places), self.dim), np.float32)
        for number, side in enumerate(SIDES):
            own = np.flatnonzero(sides == number)
            if len(own):
                targets_NK[own] = self.vectors[side][rows[own]]
        return targets_NK
