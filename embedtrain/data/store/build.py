"""Writes the files that a RowStore reads: rows given block by block, each text once, in flat memory.

B rows a block.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from embedtrain.data.rows import NAMES, NUMBERS, TEXTS, Row, text_key
from embedtrain.data.store.arrays import ArrayFile, StringsFile
from embedtrain.data.store.keys import KeyTable

BLOCK_ROWS = 8192
PAIRS = tuple(zip(TEXTS, NUMBERS, strict=True))


def exact_key(text: str) -> int:
    """A signed 64-bit hash of the text as it stands."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class Interner:
    """Gives each different string a number, in the order of first sight, and writes it once."""

    def __init__(self, folder: Path, name: str, key: Callable[[str], int]) -> None:
        """Start without any."""
        self.key = key
        self.table = KeyTable(folder / f"{name}.table")
        self.strings = StringsFile(folder, name)
        self.keys_file = ArrayFile(folder / f"{name}_keys.npy", "<i8")

    def __len__(self) -> int:
        return len(self.table)

    def keys_of(self, strings: Sequence[str]) -> np.ndarray:
        """int64 key of each string."""
        return np.fromiter(map(self.key, strings), np.int64, len(strings))

    def add(self, strings: Sequence[str], keys: np.ndarray | None = None) -> np.ndarray:
        """int64 number of each string, by its key."""
        keys = self.keys_of(strings) if keys is None else keys
        numbers, fresh = self.table.add(keys)
        self.strings.add(strings[place] for place in fresh)
        self.keys_file.add(keys[fresh])
        return numbers

    def close(self) -> None:
        """Finish the files."""
        self.table.close()
        self.strings.close()
        self.keys_file.close()


@dataclass(frozen=True, slots=True)
class Block:
    """B rows. Texts are ids; lists stand end to end, `lengths` says how many a row has; NaN and -1: none."""

    query_B: np.ndarray
    ids: Mapping[str, np.ndarray]  # by TEXTS, int64
    lengths: Mapping[str, np.ndarray]  # by TEXTS, int64 (B)
    scores: Mapping[str, np.ndarray]  # by NUMBERS, float64, as long as the ids
    score_B: np.ndarray
    codes: Mapping[str, np.ndarray]  # by NAMES, int32 (B)


class Builder:
    """Appends blocks of rows to the files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Start in an empty folder."""
        self.num_rows = 0
        self.texts = Interner(folder, "texts", text_key)
        self.names = {name: Interner(folder, f"{name}_names", exact_key) for name in NAMES}
        kinds = dict.fromkeys(("query", *TEXTS, *(f"{name}_starts" for name in TEXTS)), "<i8")
        kinds |= dict.fromkeys((*NUMBERS, "score"), "<f8") | dict.fromkeys(NAMES, "<i4")
        self.arrays = {name: ArrayFile(folder / f"{name}.npy", kind) for name, kind in kinds.items()}
        self.ends = dict.fromkeys(TEXTS, 0)
        for name in TEXTS:
            self.arrays[f"{name}_starts"].add([0])

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Append rows with their texts."""
        lengths = {name: np.array([len(getattr(row, name)) for row in rows]) for name in TEXTS}
        ids = self.texts.add([text for row in rows for text in (row.query, *row.positives, *row.negatives)])
        counts = np.stack([np.ones(len(rows), np.int64), *lengths.values()], axis=1)
        column = np.repeat(np.tile(np.arange(3), len(rows)), counts.ravel())
        self.add_block(
            Block(
                query_B=ids[column == 0],
                ids={name: ids[column == number] for number, name in enumerate(TEXTS, 1)},
                lengths=lengths,
                scores={scores: scores_of(rows, texts, scores) for texts, scores in PAIRS},
                score_B=np.array([np.nan if row.score is None else row.score for row in rows]),
                codes={name: self.encode(name, [getattr(row, name) for row in rows]) for name in NAMES},
            )
        )

    def encode(self, name: str, values: Sequence[str | None]) -> np.ndarray:
        """int32 code of each value, -1 for none."""
        distinct = list(dict.fromkeys(value for value in values if value is not None))
        codes = dict(zip(distinct, self.names[name].add(distinct).tolist(), strict=True))
        return np.array([-1 if value is None else codes[value] for value in values], np.int32)

    def add_block(self, block: Block) -> None:
        """Append rows whose texts are here already."""
        self.num_rows += len(block.query_B)
        values = {"query": block.query_B, "score": block.score_B}
        for name, array in chain(
            values.items(), block.ids.items(), block.scores.items(), block.codes.items()
        ):
            self.arrays[name].add(array)
        for name, lengths in block.lengths.items():
            self.arrays[f"{name}_starts"].add(self.ends[name] + np.cumsum(lengths))
            self.ends[name] += int(lengths.sum())

    def close(self) -> None:
        """Finish the files."""
        for strings in (self.texts, *self.names.values()):
            strings.close()
        for array in self.arrays.values():
            array.close()

    def facts(self) -> dict[str, int]:
        """How many rows, texts and pairs there are."""
        counts = {f"num_{name}": end for name, end in self.ends.items()}
        return {"num_rows": self.num_rows, "num_texts": len(self.texts), **counts}


def in_blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, some at a time."""
    left = iter(rows)
    while block := list(islice(left, BLOCK_ROWS)):
        yield block


def scores_of(rows: Iterable[Row], texts: str, scores: str) -> np.ndarray:
    """The scores of rows end to end; NaN where a row has none."""
    none = (np.nan,)
    parts = (getattr(row, scores) or none * len(getattr(row, texts)) for row in rows)
    return np.fromiter(chain.from_iterable(parts), np.float64)
