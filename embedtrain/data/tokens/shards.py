"""Shards of a token cache: ids end to end in one file, and in another what tells the entries apart."""

import io
import os
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedtrain.artifacts import put_in_place, write_atomic
from embedtrain.data.tokens.encode import Tokens

ENTRY = np.dtype([("code", np.int64), ("end", np.int64), ("first", np.uint32), ("cut", np.bool_)])
"""By entry: its code, where its ids end, its first pooled token, and whether it was cut to its limit."""

Encoded = tuple[Tokens, np.ndarray]
"""Tokens of T texts, and whether each was cut, bool (T,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Memory maps of E entries with rising codes, and of their ids."""

    code_E: np.ndarray
    end_E: np.ndarray
    first_E: np.ndarray
    cut_E: np.ndarray
    ids: np.ndarray

    def entry(self, code: int) -> tuple[np.ndarray, int]:
        """(token ids, first pooled one) of the entry; KeyError where it was not tokenised."""
        place = bisect_left(self.code_E, code)
        if place == len(self.code_E) or self.code_E[place] != code:
            raise KeyError(f"no tokens for code {code}")
        start = int(self.end_E[place - 1]) if place else 0
        return self.ids[start : int(self.end_E[place])], int(self.first_E[place])


def write_shard(
    folder: Path, number: int, dtype: np.dtype, codes_E: np.ndarray, blocks: Iterable[Encoded]
) -> None:
    """Write the ids of `blocks` as they come; the entries last."""
    ids_file, entries_file = shard_files(folder, number)
    aside, spans = ids_file.with_suffix(".partial"), [np.zeros((3, 0), np.int64)]
    with put_in_place(aside, ids_file), aside.open("wb") as file:
        for tokens, cut_T in blocks:
            file.write(tokens.ids.astype(dtype).tobytes())
            spans.append(np.stack([tokens.lengths_T, tokens.first_T, cut_T.astype(np.int64)]))
        file.flush()
        os.fsync(file.fileno())
    entries_E = np.empty(len(codes_E), ENTRY)
    lengths_E, entries_E["first"], entries_E["cut"] = np.concatenate(spans, axis=1)
    entries_E["code"], entries_E["end"] = codes_E, np.cumsum(lengths_E)
    buffer = io.BytesIO()
    np.save(buffer, entries_E)
    write_atomic(entries_file, buffer.getvalue())


def open_shard(folder: Path, number: int, dtype: np.dtype) -> Shard:
    """The shard's memory maps, read when asked."""
    ids_file, entries_file = shard_files(folder, number)
    entries_E = np.asarray(np.load(entries_file, mmap_mode="r"))
    size = ids_file.stat().st_size
    ids = np.asarray(np.memmap(ids_file, dtype, mode="r")) if size else np.empty(0, dtype)
    return Shard(entries_E["code"], entries_E["end"], entries_E["first"], entries_E["cut"], ids)


def shard_files(folder: Path, number: int) -> tuple[Path, Path]:
    """(ids, entries) of the shard; it is whole once the second is there."""
    return folder / f"{number:05d}.ids.bin", folder / f"{number:05d}.entries.npy"
