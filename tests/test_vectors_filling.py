"""The vector store filled by several processes, killed and gone on; float16; memory; nothing stale."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_vectors import RECIPE, FakeEncoder, exact_vector, folder_bytes
from tiny_models import TEXTS, save_tiny

from embedtrain.artifacts import hash_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.encoder import Encoder, weights_hash
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import tune_all
from embedtrain.vectors import Recipe, encode_texts, fill_store, read_vectors

FILLS = """
    import sys, time
    from dataclasses import asdict
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_vectors import FakeEncoder, RECIPE
    from embedtrain.vectors import fill_store

    class Slow(FakeEncoder):
        def encode(self, texts, side, **rest):
            time.sleep({seconds})
            return super().encode(texts, side, **rest)

    texts = ["text %d " % n * (n % 7 + 1) for n in range(400)]
    encoder = Slow()
    share = dict(tokens_per_batch=16, rank={rank}, world={world})
    filled = fill_store(encoder, texts, RECIPE, Path({store!r}), **share)
    print(len(encoder.calls), filled.made, filled.found, filled.shards_made, filled.shards_found)
"""


def start(store: Path, rank: int, world: int, seconds: float = 0.0) -> "subprocess.Popen[str]":
    here = Path(__file__).parent
    script = FILLS.format(tests=str(here), store=str(store), rank=rank, world=world, seconds=seconds)
    environment = os.environ | {"PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, env=environment
    )


def fill(store: Path, world: int, seconds: float = 0.0) -> list[list[int]]:
    """(encoded shards, made, found, shards made, shards found) as each of `world` processes tells."""
    children = [start(store, rank, world, seconds) for rank in range(world)]
    return [[int(number) for number in child.communicate(timeout=60)[0].split()] for child in children]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A store filled by one process, and its number of shards."""
    store = tmp_path_factory.mktemp("whole")
    ((encoded, made, found, shards_made, shards_found),) = fill(store, 1)
    assert (made, found, shards_found) == (400, 0, 0)
    assert encoded == shards_made == len(list(store.rglob("*.keys.npy"))) > 20
    return store, encoded


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_shards_and_write_the_same(
    whole: tuple[Path, int], tmp_path: Path, world: int
) -> None:
    store, num_shards = whole
    told = fill(tmp_path, world, seconds=0.005)
    assert folder_bytes(tmp_path) == folder_bytes(store)
    assert sorted(line[0] for line in told) == sorted(len(range(r, num_shards, world)) for r in range(world))
    assert [line[1] + line[2] for line in told] == [400] * world
    assert fill(tmp_path, 1) == [[0, 0, 400, 0, num_shards]]


@pytest.mark.parametrize("later", [1, 2, 3])
def test_killed_processes_lose_a_shard_each(whole: tuple[Path, int], tmp_path: Path, later: int) -> None:
    """Two are killed, and another number goes on: the same cut, nothing finished made again."""
    store, num_shards = whole
    children = [start(tmp_path, rank, 2, seconds=0.03) for rank in range(2)]
    while len(list(tmp_path.rglob("*.keys.npy"))) < 6:
        assert all(child.poll() is None for child in children)
        time.sleep(0.002)
    for child in children:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    done = len(list(tmp_path.rglob("*.keys.npy")))
    assert 6 <= done < num_shards - 2
    told = fill(tmp_path, later, seconds=0.005)
    assert sum(line[0] for line in told) == num_shards - done
    assert told[0][4] >= done
    assert folder_bytes(tmp_path) == folder_bytes(store)


def test_what_was_made_and_found_is_counted(tmp_path: Path) -> None:
    first = fill_store(FakeEncoder(), ["a", "b", "a"], RECIPE, tmp_path)
    assert (first.made, first.found, first.shards_made, first.shards_found) == (2, 0, 1, 0)
    assert first.keys_N[0] == first.keys_N[2] != first.keys_N[1]
    second = fill_store(FakeEncoder(), ["c", "b"], RECIPE, tmp_path)
    assert (second.made, second.found) == (1, 1)
    again = fill_store(FakeEncoder(), ["c", "b"], RECIPE, tmp_path)
    assert (again.made, again.found, again.shards_made, again.shards_found) == (0, 2, 0, 1)
    with pytest.raises(ValueError, match="1 instructions for 2 texts"):
        fill_store(FakeEncoder(), ["c", "b"], RECIPE, tmp_path, instructions=["x"])


def test_an_instruction_for_every_text_does_not_make_a_shard_each(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(50)]
    instructions = [f"way {number}" for number in range(50)]
    vectors = encode_texts(FakeEncoder(), texts, RECIPE, tmp_path, instructions=instructions)
    assert len(list(tmp_path.rglob("*.keys.npy"))) == 1
    expected = [exact_vector(*pair) for pair in zip(texts, instructions, strict=True)]
    np.testing.assert_allclose(vectors, expected, atol=1e-4)


def test_float16_halves_the_disk(tmp_path: Path) -> None:
    half = Recipe("w", "t", "query", 32, dtype="float16")
    texts = [f"text {number}" for number in range(2000)]
    exact = encode_texts(FakeEncoder(), texts, RECIPE, tmp_path)
    vectors = encode_texts(FakeEncoder(), texts, half, tmp_path, out=tmp_path / "half.npy")
    assert vectors.dtype == np.float16
    assert isinstance(vectors, np.memmap)
    np.testing.assert_array_equal(vectors, exact.astype(np.float16))
    sizes = [sum(f.stat().st_size for f in (tmp_path / r.name).glob("*.vectors.npy")) for r in (RECIPE, half)]
    assert sizes[1] < 0.6 * sizes[0]


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    class Large(FakeEncoder):
        def encode(self, texts: Sequence[str], side: str, **rest: object) -> np.ndarray:
            return np.full((len(texts), 5), 1e5, np.float32)

    with pytest.raises(UserError, match=r"not finite \(NaN or infinite as float16\) for 'a'"):
        encode_texts(Large(), ["a"], Recipe("w", "t", "query", 32, dtype="float16"), tmp_path)


class Told(Sequence[str]):
    """Texts that are made as they are read, as a store's are."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self.number:
            raise IndexError(index)
        return f"{index} " + "some words " * 20


class Wide(FakeEncoder):
    """Vectors of 1 KB."""

    dim = 256

    def encode(self, texts: Sequence[str], side: str, **rest: object) -> np.ndarray:
        return np.full((len(texts), 256), 0.5, np.float32)


def test_memory_holds_some_numbers_a_text(tmp_path: Path) -> None:
    """Neither its vector (1,024 bytes) nor its characters (226 and an object)."""
    peaks = []
    for number in (4_000, 24_000):
        folder = tmp_path / str(number)
        tracemalloc.start()
        vectors = encode_texts(
            Wide(), Told(number), RECIPE, folder, tokens_per_batch=2048, out=folder / "all.npy"
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert vectors.shape == (number, 256)
    grown = (peaks[1] - peaks[0]) / 20_000
    assert grown < 160, f"{grown:.0f} bytes a text"


def stored(encoder: Encoder, template: str, store: Path, max_tokens: int = 32) -> np.ndarray:
    """As a mine stage stores: by weights, templates and limit."""
    recipe = Recipe(weights_hash(encoder), hash_json(template), "document", max_tokens)
    return encode_texts(encoder.with_templates("{text}", template), TEXTS, recipe, store)


def test_nothing_stale_of_a_trained_model(tmp_path: Path) -> None:
    """Trained on, under another template or limit: what the store gives is what the model gives now."""
    path = save_tiny("llama", tmp_path / "model")
    encoder = load_encoder(Base(model=str(path)), EncoderConfig(), TextFormat())
    store = tmp_path / "store"
    before = stored(encoder, "{text}", store)
    cases = {
        "template": stored(encoder, "passage: {text}", store),
        "limit": stored(encoder, "{text}", store, 5),
    }
    tune_all(encoder)
    optimizer = torch.optim.SGD([p for _, p in encoder.trainable()], lr=0.5)
    encoder(encoder.tokenize(encoder.format(TEXTS, "query"), 32))[:, 0].sum().backward()
    optimizer.step()
    cases["training"] = stored(encoder, "{text}", store)
    fresh = encoder.with_templates("{text}", "{text}").encode(TEXTS, "document", max_tokens=32)
    np.testing.assert_array_equal(cases["training"], fresh)
    for name, vectors in cases.items():
        assert np.abs(vectors - before).max() > 1e-3, name
    assert len(list(store.iterdir())) == 4


def test_texts_of_two_calls_meet_in_one_read(tmp_path: Path) -> None:
    first = fill_store(FakeEncoder(), ["a", "b"], RECIPE, tmp_path)
    second = fill_store(FakeEncoder(), ["c"], RECIPE, tmp_path)
    keys = np.concatenate([second.keys_N, first.keys_N, second.keys_N])
    vectors = read_vectors(tmp_path / RECIPE.name, keys, 5)
    np.testing.assert_allclose(vectors, [exact_vector(text) for text in "cabc"], atol=1e-4)
