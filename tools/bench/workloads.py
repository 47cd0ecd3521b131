"""Batches of token ids that every peer gets alike: `Workload`, drawn from real text by `draw_workload`.

Lengths are drawn first. Then each text is a piece of a long stream of tokens: real text, row after row. A
piece that is decoded need not give the same tokens again, so every peer gets the ids and never the text.

B rows; a column holds a text of each row: the queries, the positives, then hard negatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from embedtrain.data.rows import read_rows

FEWEST_TOKENS = 2
FIRST_ID = 10
"""Of random tokens; padding and its like stand below."""
Texts = list[list[int]]


@dataclass(frozen=True)
class Lengths:
    """Tokens of a text: lognormal of this median and sigma, at most `most`; fixed where sigma is 0."""

    median: int
    sigma: float = 0.0
    most: int = 1 << 30

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """So many lengths."""
        drawn = self.median * np.exp(self.sigma * rng.standard_normal(count))
        return np.clip(np.rint(drawn), FEWEST_TOKENS, self.most).astype(np.int64)


@dataclass(frozen=True)
class Shape:
    """What a workload looks like."""

    says: str
    queries: Lengths
    documents: Lengths
    rows: int
    num_negatives: int = 0

    def shrunk(self, by: int, rows: int) -> "Shape":
        """Texts so many times shorter, and so many rows: for a rehearsal."""
        queries, documents = (
            Lengths(max(FEWEST_TOKENS, one.median // by), one.sigma, max(FEWEST_TOKENS, one.most // by))
            for one in (self.queries, self.documents)
        )
        return replace(self, queries=queries, documents=documents, rows=rows)


SHAPES = {
    "W1": Shape("2 x 128 tokens: nothing is padded", Lengths(128), Lengths(128), 32),
    "W2": Shape("2 x 512 tokens: nothing is padded", Lengths(512), Lengths(512), 32),
    "W3": Shape(
        "like MS MARCO: short queries, one passage and 7 hard negatives",
        Lengths(9, 0.5, 64),
        Lengths(70, 0.35, 180),
        16,
        num_negatives=7,
    ),
    "W4": Shape("like E5's mix: pairs of all lengths", Lengths(110, 0.9, 512), Lengths(110, 0.9, 512), 32),
}


@dataclass(frozen=True)
class Workload:
    """Token ids of one batch, in columns."""

    name: str
    columns: list[Texts]

    @property
    def num_rows(self) -> int:
        """Pairs, each with its hard negatives."""
        return len(self.columns[0])

    @property
    def queries(self) -> Texts:
        """The first column."""
        return self.columns[0]

    @property
    def groups(self) -> list[Texts]:
        """The documents of each row, its positive first."""
        return [list(group) for group in zip(*self.columns[1:], strict=True)]

    @property
    def documents(self) -> Texts:
        """All documents, row by row."""
        return [text for group in self.groups for text in group]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every text, columns end to end."""
        return np.array([len(text) for column in self.columns for text in column])

    def head(self, rows: int | None) -> "Workload":
        """The first rows, or all."""
        return Workload(self.name, [column[:rows] for column in self.columns])

    def save(self, path: Path) -> Path:
        """Ids end to end and the length of each text."""
        lengths = self.lengths.reshape(len(self.columns), self.num_rows)
        np.savez(
            path, name=self.name, ids=np.concatenate([t for c in self.columns for t in c]), lengths=lengths
        )
        return path

    @classmethod
    def load(cls, path: Path) -> "Workload":
        """What `save` wrote."""
        with np.load(path) as file:
            lengths = file["lengths"]
            ends = [0, *np.cumsum(lengths.ravel()).tolist()]
            texts = [file["ids"][start:stop].tolist() for start, stop in pairwise(ends)]
            size = lengths.shape[1]
            return cls(str(file["name"]), [texts[at : at + size] for at in range(0, len(texts), size)])


def draw_workload(name: str, shape: Shape, stream: np.ndarray, seed: int) -> Workload:
    """A batch of that shape: each text the next piece of the stream, from a place that the seed chooses."""
    rng = np.random.default_rng([seed, *name.encode()])
    columns = [shape.queries] + [shape.documents] * (1 + shape.num_negatives)
    lengths = [one.draw(rng, shape.rows) for one in columns]
    total = int(sum(column.sum() for column in lengths))
    places = int(rng.integers(len(stream))) + np.arange(total)
    pieces = np.split(np.take(stream, places, mode="wrap"), np.cumsum(np.concatenate(lengths))[:-1])
    texts = [piece.tolist() for piece in pieces]
    return Workload(name, [texts[at : at + shape.rows] for at in range(0, len(texts), shape.rows)])


def text_stream(tokenizer: Tokenizer, files: Sequence[Path], num_tokens: int) -> np.ndarray:
    """Tokens of the files' positives end to end, at least so many where there are."""
    parts: list[list[int]] = []
    num = 0
    for file in files:
        for row in read_rows(file):
            parts.append(tokenizer.encode(row.positives[0], add_special_tokens=False).ids)
            num += len(parts[-1])
            if num >= num_tokens:
                return np.concatenate(parts)
    if not parts:
        raise SystemExit("no rows to draw texts from; expected rows/*/train.parquet")
    return np.concatenate(parts)


def random_stream(vocab_size: int, num_tokens: int, seed: int) -> np.ndarray:
    """Random tokens, for a model of random weights that has no tokenizer."""
    return np.random.default_rng(seed).integers(min(FIRST_ID, vocab_size - 1), vocab_size, num_tokens)
