"""Encodes what a store lacks: the cut into shards, written down first, and each process's share of them.

Dimensions: N texts in the order given, U different ones sorted by key, M missing ones as they are encoded.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import groupby
from pathlib import Path

import numpy as np

from embedtrain.artifacts import write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.places import at, wait_for
from embedtrain.show.progress import Bar, progress
from embedtrain.vectors.recipe import Recipe, TextEncoder, vector_key
from embedtrain.vectors.shards import find_stored, keys_file, read_vectors, write_shard

SHARD_BATCHES = 4  # batches of `tokens_per_batch` in one shard, about
BYTES_PER_TOKEN = 4  # only sizes the shards; batches are cut by real tokens, by the encoder


@dataclass(frozen=True, slots=True)
class Filled:
    """Keys of the texts in their order; how many different texts and shards were made and found finished.

    What others made while this process worked counts as made.
    """

    keys_N: np.ndarray
    made: int
    found: int
    shards_made: int
    shards_found: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Texts that are encoded together: their places among all, their keys, and the file that ends them."""

    places: np.ndarray
    keys: np.ndarray
    file: Path

    @property
    def whole(self) -> bool:
        """Whether its vectors are there."""
        return self.file.exists()


@dataclass(frozen=True, slots=True)
class Asked:
    """The texts of one call, none of them in memory but those that are read one by one."""

    texts: Sequence[str]
    instructions: str | Sequence[str]

    def __post_init__(self) -> None:
        if not isinstance(self.instructions, str) and len(self.instructions) != len(self.texts):
            raise ValueError(f"{len(self.instructions)} instructions for {len(self.texts)} texts")

    def instruction(self, place: int) -> str:
        """The instruction of one text."""
        return self.instructions if isinstance(self.instructions, str) else self.instructions[place]

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Key of each text (int64) and its bytes as UTF-8 (int32)."""
        keys_N, bytes_N = np.empty(len(self.texts), np.int64), np.empty(len(self.texts), np.int32)
        for place, text in enumerate(self.texts):
            keys_N[place] = vector_key(text, self.instruction(place))
            bytes_N[place] = len(text.encode())
        return keys_N, bytes_N

    def codes(self, places: np.ndarray) -> np.ndarray:
        """Number of each text's instruction among those of these texts, sorted."""
        names = [self.instruction(place) for place in places.tolist()]
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        return np.array([numbers[name] for name in names], np.int32)


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
    """Vectors (N, D) of `texts`, in their order and the recipe's dtype; what the store lacks is encoded.

    With `out`, they are written there and come back as a memory map: memory does not grow with the texts but
    for some numbers each.
    """
    filled = fill_store(
        encoder,
        texts,
        recipe,
        store,
        instructions=instructions,
        tokens_per_batch=tokens_per_batch,
        label=label,
    )
    return read_vectors(store / recipe.name, filled.keys_N, encoder.dim, out, recipe.dtype)


def fill_store(
    encoder: TextEncoder,
    texts: Sequence[str],
    recipe: Recipe,
    store: Path,
    *,
    instructions: str | Sequence[str] = "",
    tokens_per_batch: int = 16384,
    label: str = "encode",
    rank: int = 0,
    world: int = 1,
) -> Filled:
    """Encode the texts that the store lacks, every `world`-th shard here; returns once all are there.

    Every process calls it with the same texts. One that is killed loses the shard that it is at.
    """
    folder = store / recipe.name
    asked = Asked(texts, instructions)
    keys_N, bytes_N = asked.measure()
    keys_U, first_U = np.unique(keys_N, return_index=True)
    missing_U = read_plan(folder, keys_U, tokens_per_batch, recipe, rank)
    shards = list(cut(folder, asked, first_U[missing_U], keys_N, bytes_N, recipe, tokens_per_batch))
    pending = [(number % world == rank, shard) for number, shard in enumerate(shards) if not shard.whole]
    num_texts = sum(len(shard.keys) for _, shard in pending)
    if pending:
        with progress(label, total=num_texts, unit="text") as bar:
            for shard in own_shards(pending, bar):
                at(f"{label}: shard {shard.file.stem}")
                write_shard(folder, shard.keys, encode_shard(encoder, asked, shard, recipe, tokens_per_batch))
    return Filled(keys_N, num_texts, len(keys_U) - num_texts, len(pending), len(shards) - len(pending))


def read_plan(
    folder: Path, keys_U: np.ndarray, tokens_per_batch: int, recipe: Recipe, rank: int
) -> np.ndarray:
    """bool (U,): which texts lacked a vector when they were first asked for, as the first process noted.

    Not which lack one now: a run that goes on after a kill cuts the same shards again.
    """
    name = blake2b(keys_U.tobytes() + tokens_per_batch.to_bytes(8, "big"), digest_size=8).hexdigest()
    path = folder / "plans" / f"{name}.bits"
    if rank == 0 and not path.exists():
        write_json(folder / "recipe.json", asdict(recipe))
        write_atomic(path, np.packbits(~find_stored(folder, keys_U)).tobytes())
    wait_for([path])
    return np.unpackbits(np.fromfile(path, np.uint8), count=len(keys_U)).astype(bool)


def cut(
    folder: Path,
    asked: Asked,
    places: np.ndarray,
    keys_N: np.ndarray,
    bytes_N: np.ndarray,
    recipe: Recipe,
    tokens_per_batch: int,
) -> Iterator[Shard]:
    """Shards of the texts at these places, by instruction, longest first: of nothing but the texts."""
    order = np.lexsort((keys_N[places], -bytes_N[places], asked.codes(places)))
    places_M = places[order]
    most = tokens_per_batch * SHARD_BATCHES
    tokens_M = np.minimum(bytes_N[places_M] // BYTES_PER_TOKEN + 1, recipe.max_tokens or most)
    for part in cut_shards(tokens_M.tolist(), most):
        keys = keys_N[places_M[part]]
        yield Shard(places_M[part], keys, keys_file(folder, keys))


def cut_shards(tokens: Sequence[int], max_tokens: int) -> Iterator[slice]:
    """Consecutive texts of at most `max_tokens` tokens together; one may exceed them alone."""
    start = total = 0
    for place, count in enumerate(tokens):
        if place > start and total + count > max_tokens:
            yield slice(start, place)
            start, total = place, 0
        total += count
    if len(tokens):
        yield slice(start, len(tokens))


def own_shards(pending: Sequence[tuple[bool, Shard]], bar: Bar) -> Iterator[Shard]:
    """This process's shards, each to be written before the next; ends when those of all others are there."""
    others: deque[Shard] = deque()
    for own, shard in pending:
        if not own:
            others.append(shard)
            continue
        yield shard
        bar.advance(len(shard.keys))
        while others and others[0].whole:
            bar.advance(len(others.popleft().keys))
    for shard in others:
        wait_for([shard.file])
        bar.advance(len(shard.keys))


def encode_shard(
    encoder: TextEncoder, asked: Asked, shard: Shard, recipe: Recipe, tokens_per_batch: int
) -> np.ndarray:
    """Vectors of the shard's texts in the recipe's dtype; UserError where one is not finite."""
    parts = []
    for instruction, places in groupby(shard.places.tolist(), asked.instruction):
        texts = [asked.texts[place] for place in places]
        vectors = encoder.encode(
            texts,
            recipe.side,
            instruction=instruction,
            max_tokens=recipe.max_tokens,
            tokens_per_batch=tokens_per_batch,
            normalize=recipe.normalize,
        )
        if vectors.shape != (len(texts), encoder.dim):
            raise ValueError(f"encode gave shape {vectors.shape}, expected {(len(texts), encoder.dim)}")
        with np.errstate(over="ignore"):
            parts.append(vectors.astype(recipe.dtype, copy=False))
        check_finite(parts[-1], texts)
    return np.concatenate(parts)


def check_finite(vectors: np.ndarray, texts: Sequence[str]) -> None:
    """Raise UserError for the first text with a vector that is not."""
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        found = f"not finite (NaN or infinite as {vectors.dtype})"
        raise UserError(
            f"the model gives a vector that is {found} for {texts[int(np.argmin(finite))][:80]!r}"
        )
