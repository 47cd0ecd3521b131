"""Encodes texts into a store on disk, so that no text is encoded twice and a kill costs one shard.

A store has a folder for each recipe: the weights, the formatting and the side that turn a text into a vector.
Other weights or another template are another folder, so nothing stale is ever read. In it lie shards, each a
matrix of vectors, read as a memory map, and, written last, the keys of its texts.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from embedtrain.artifacts import hash_json, write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.show.progress import progress

SHARD_BATCHES = 4  # batches of `tokens_per_batch` in one shard, about
BYTES_PER_TOKEN = 4  # only sizes the shards; batches are cut by real tokens, by the encoder
Side = Literal["query", "document"]


class TextEncoder(Protocol):
    """What encodes here: `embedtrain.model.encoder.Encoder`, or anything alike."""

    @property
    def dim(self) -> int:
        """Dims of a vector."""

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        """One float32 vector a text, in the order given."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a vector depends on besides the text and its instruction."""

    weights: str  # hash of the weights
    template: str  # hash of the formatting: templates, pooling, attention
    side: Side
    max_tokens: int | None
    normalize: bool = True

    @property
    def name(self) -> str:
        """Folder of the recipe in a store."""
        return hash_json(asdict(self))[:16]


@dataclass(frozen=True, slots=True)
class Asked:
    """A text to encode, and its key in the store."""

    key: int
    text: str
    instruction: str

    @property
    def size(self) -> int:
        """Bytes of the text as UTF-8."""
        return len(self.text.encode())


def encode_texts(
    encoder: TextEncoder,
    texts: Sequence[str],
    recipe: Recipe,
    store: Path,
    *,
    instructions: str | Sequence[str] = "",
    tokens_per_batch: int = 16384,
    label: str = "encode",
    out: Path | None = None,
) -> np.ndarray:
    """float32 vectors of `texts`, in their order; only those the store lacks are encoded.

    With `out`, the vectors are written there and come back as a memory map.
    """
    if isinstance(instructions, str):
        instructions = [instructions] * len(texts)
    folder = store / recipe.name
    pairs = list(zip(texts, instructions, strict=True))
    keys = np.array([vector_key(text, instruction) for text, instruction in pairs], np.int64)
    asked = [Asked(int(key), *pair) for key, pair in zip(keys, pairs, strict=True)]
    missing = find_missing(folder, asked)
    write_json(folder / "recipe.json", asdict(recipe))
    if missing:
        with progress(label, total=len(missing), unit="text") as bar:
            for shard in cut_shards(missing, tokens_per_batch * SHARD_BATCHES, recipe.max_tokens):
                write_shard(folder, shard, _encode_shard(encoder, shard, recipe, tokens_per_batch))
                bar.advance(len(shard))
    return read_vectors(folder, keys, encoder.dim, out)


def vector_key(text: str, instruction: str = "") -> int:
    """Signed 64-bit hash of an instruction and a text, to the last space."""
    digest = blake2b(f"{len(instruction)}:{instruction}{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def find_missing(folder: Path, asked: Sequence[Asked]) -> list[Asked]:
    """The texts without a vector in the folder, each once: by instruction, longest first.

    The order depends on nothing but the texts. Finished shards are its beginning, so a run that was killed
    cuts the rest into the very shards it would have written.
    """
    stored = {int(key) for shard in _shards(folder) for key in np.load(_keys_file(shard))}
    missing = {one.key: one for one in asked if one.key not in stored}
    return sorted(missing.values(), key=lambda one: (one.instruction, -one.size, one.key))


def cut_shards(missing: Sequence[Asked], max_tokens: int, text_tokens: int | None) -> Iterator[list[Asked]]:
    """Consecutive texts of one instruction and about `max_tokens` tokens, each at most `text_tokens`."""
    for _, group in groupby(missing, key=lambda one: one.instruction):
        shard: list[Asked] = []
        tokens = 0
        for one in group:
            size = min(one.size // BYTES_PER_TOKEN + 1, text_tokens or max_tokens)
            if shard and tokens + size > max_tokens:
                yield shard
                shard, tokens = [], 0
            shard.append(one)
            tokens += size
        yield shard


def _encode_shard(
    encoder: TextEncoder, shard: Sequence[Asked], recipe: Recipe, tokens_per_batch: int
) -> np.ndarray:
    vectors = encoder.encode(
        [one.text for one in shard],
        recipe.side,
        instruction=shard[0].instruction,
        max_tokens=recipe.max_tokens,
        tokens_per_batch=tokens_per_batch,
        normalize=recipe.normalize,
    )
    if vectors.shape != (len(shard), encoder.dim):
        raise ValueError(f"encode gave shape {vectors.shape}, expected {(len(shard), encoder.dim)}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        text = shard[int(np.flatnonzero(~finite)[0])].text
        raise UserError(f"the model gives a vector that is not finite (NaN or infinite) for {text[:80]!r}")
    return vectors.astype(np.float32, copy=False)


def write_shard(folder: Path, shard: Sequence[Asked], vectors: np.ndarray) -> None:
    """Vectors first, keys last: a shard is whole once its keys are there."""
    keys = np.array([one.key for one in shard], np.int64)
    path = folder / f"{blake2b(keys.tobytes(), digest_size=8).hexdigest()}.vectors.npy"
    write_atomic(path, _npy(vectors))
    write_atomic(_keys_file(path), _npy(keys))


def read_vectors(folder: Path, keys: np.ndarray, dim: int, out: Path | None = None) -> np.ndarray:
    """float32 vectors of the keys, in their order, in the file `out` if given; KeyError where one lacks."""
    vectors = _empty((len(keys), dim), out)
    found = np.zeros(len(keys), bool)
    order = np.argsort(keys, kind="stable")
    for shard in _shards(folder):
        stored = np.load(_keys_file(shard))
        matrix = np.load(shard, mmap_mode="r")
        if matrix.shape != (len(stored), dim):
            raise UserError(
                f"{shard}: shape {matrix.shape}, expected {(len(stored), dim)}; delete the folder {folder}"
            )
        places, rows = _meet(keys, order, stored)
        vectors[places] = matrix[rows]
        found[places] = True
    if not found.all():
        raise KeyError(f"{folder} has no vector for {int((~found).sum())} of {len(keys)} keys")
    return vectors


def _meet(keys: np.ndarray, order: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `keys` whose key stands in `stored`, and where; `order` sorts `keys`."""
    ordered = keys[order]
    first = np.searchsorted(ordered, stored, "left")
    counts = np.searchsorted(ordered, stored, "right") - first
    rows = np.repeat(np.arange(len(stored)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[first[rows] + within], rows


def _shards(folder: Path) -> list[Path]:
    """The whole shards, by name."""
    return [path for path in sorted(folder.glob("*.vectors.npy")) if _keys_file(path).exists()]


def _keys_file(shard: Path) -> Path:
    return shard.with_name(shard.name.replace(".vectors.npy", ".keys.npy"))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _empty(shape: tuple[int, int], out: Path | None) -> np.ndarray:
    if out is None:
        return np.empty(shape, np.float32)
    out.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=shape)
