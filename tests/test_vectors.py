"""vectors/: nothing stale, nothing twice, and a kill that changes no byte."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.vectors import Recipe, encode_texts, read_vectors, vector_key
from embedtrain.vectors.filling import cut_shards
from embedtrain.vectors.shards import find_stored

RECIPE = Recipe(weights="w", template="t", side="query", max_tokens=32)
TEXTS = ["b", "a", "", "a longer text", "b", "ein anderer Text " * 20, "a "]


class FakeEncoder:
    """Vectors from a hash of the text, moved a little by their company in a batch, as a real model's are."""

    dim = 5

    def __init__(self, fail_after: int | None = None) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.fail_after = fail_after

    def encode(
        self,
        texts: Sequence[str],
        side: str,
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        if self.fail_after is not None and len(self.calls) >= self.fail_after:
            raise KeyboardInterrupt
        self.calls.append((instruction, list(texts)))
        return np.stack([exact_vector(text, instruction) + 1e-6 * len(texts) for text in texts])

    @property
    def encoded(self) -> list[str]:
        return [text for _, texts in self.calls for text in texts]


def exact_vector(text: str, instruction: str = "") -> np.ndarray:
    digest = blake2b(f"{instruction}|{text}".encode(), digest_size=20).digest()
    return np.frombuffer(digest, np.uint32).astype(np.float32) / 2**32


def folder_bytes(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*.npy"))}


def test_vectors_come_in_order_and_each_text_is_encoded_once(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    vectors = encode_texts(encoder, TEXTS, RECIPE, tmp_path)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [exact_vector(text) for text in TEXTS], atol=1e-4)
    assert sorted(encoder.encoded) == sorted(set(TEXTS))
    again = FakeEncoder()
    np.testing.assert_array_equal(encode_texts(again, TEXTS, RECIPE, tmp_path), vectors)
    encode_texts(again, [*TEXTS, "new"], RECIPE, tmp_path)
    assert again.encoded == ["new"]


def test_longest_first_in_shards_within_the_budget(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    texts = ["x" * number for number in range(1, 200)]
    encode_texts(encoder, texts, Recipe("w", "t", "query", None), tmp_path, tokens_per_batch=64)
    assert [len(text) for text in encoder.encoded] == sorted(range(1, 200), reverse=True)
    tokens = [sum(len(text) // 4 + 1 for text in shard) for _, shard in encoder.calls]
    assert len(tokens) > 5
    assert max(tokens) <= 4 * 64


@pytest.mark.parametrize(
    "other",
    [
        Recipe("other", "t", "query", 32),
        Recipe("w", "other", "query", 32),
        Recipe("w", "t", "document", 32),
        Recipe("w", "t", "query", None),
        Recipe("w", "t", "query", 32, normalize=False),
        Recipe("w", "t", "query", 32, dtype="float16"),
    ],
)
def test_nothing_stale_is_reused(tmp_path: Path, other: Recipe) -> None:
    encode_texts(FakeEncoder(), TEXTS, RECIPE, tmp_path)
    encoder = FakeEncoder()
    encode_texts(encoder, TEXTS, other, tmp_path)
    assert sorted(encoder.encoded) == sorted(set(TEXTS))


def test_instructions_are_part_of_the_text(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    texts, instructions = ["a", "a", "b", "a"], ["one", "two", "one", "one"]
    vectors = encode_texts(encoder, texts, RECIPE, tmp_path, instructions=instructions)
    expected = [exact_vector(*pair) for pair in zip(texts, instructions, strict=True)]
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    assert [instruction for instruction, _ in encoder.calls] == ["one", "two"]
    assert vector_key("b", "a") != vector_key("ab", "") != vector_key("ab ", "")


def test_a_memory_map_where_a_file_is_named(tmp_path: Path) -> None:
    plain = encode_texts(FakeEncoder(), TEXTS, RECIPE, tmp_path)
    mapped = encode_texts(FakeEncoder(), TEXTS, RECIPE, tmp_path, out=tmp_path / "out" / "all.npy")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, plain)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "all.npy"), plain)
    assert encode_texts(FakeEncoder(), [], RECIPE, tmp_path).shape == (0, 5)
    assert encode_texts(FakeEncoder(), [], RECIPE, tmp_path, out=tmp_path / "none.npy").shape == (0, 5)


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=40),
    stop=st.integers(0, 12),
    budget=st.integers(1, 12),
)
def test_an_interrupted_store_ends_byte_identical(tmp_path_factory, texts, stop, budget) -> None:
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    uninterrupted = FakeEncoder()
    expected = encode_texts(uninterrupted, texts, RECIPE, whole, tokens_per_batch=budget)
    first, second = FakeEncoder(fail_after=stop), FakeEncoder()
    try:
        encode_texts(first, texts, RECIPE, broken, tokens_per_batch=budget)
    except KeyboardInterrupt:
        assert len(first.calls) == stop
    found = encode_texts(second, texts, RECIPE, broken, tokens_per_batch=budget)
    np.testing.assert_array_equal(found, expected)
    assert folder_bytes(broken) == folder_bytes(whole)
    assert first.calls + second.calls == uninterrupted.calls  # no finished shard twice


KILLED = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_vectors import FakeEncoder, RECIPE
    from embedtrain.vectors import encode_texts

    class Slow(FakeEncoder):
        def encode(self, texts, side, **rest):
            time.sleep(0.02)
            return super().encode(texts, side, **rest)

    texts = ["text %d " % n * (n % 7 + 1) for n in range(400)]
    encoder = Slow()
    encode_texts(encoder, texts, RECIPE, Path({store!r}), tokens_per_batch=16)
    print(len(encoder.calls))
"""


def start(store: Path) -> "subprocess.Popen[str]":
    script = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent), store=str(store)))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_sigkill_costs_at_most_one_shard(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    num_shards = int(start(whole).communicate(timeout=60)[0])
    assert num_shards > 20
    for shards in (3, 12):
        child = start(broken)
        while len(list(broken.rglob("*.keys.npy"))) < shards:
            assert child.poll() is None
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    done = len(list(broken.rglob("*.keys.npy")))
    assert 12 <= done < num_shards
    encoded = int(start(broken).communicate(timeout=60)[0])
    assert encoded == num_shards - done
    assert folder_bytes(broken) == folder_bytes(whole)


def test_half_a_shard_is_not_read(tmp_path: Path) -> None:
    encode_texts(FakeEncoder(), TEXTS, RECIPE, tmp_path)
    folder = tmp_path / RECIPE.name
    (keys,) = folder.glob("*.keys.npy")
    keys.unlink()
    wanted = np.unique([vector_key(text) for text in TEXTS])
    assert not find_stored(folder, wanted).any()
    with pytest.raises(UserError, match="no vector for 1 of 1 texts; delete the folder"):
        read_vectors(folder, np.array([vector_key("a")]), 5)
    again = FakeEncoder()
    encode_texts(again, TEXTS, RECIPE, tmp_path)
    assert sorted(again.encoded) == sorted(set(TEXTS))


def test_cut_shards_of_long_texts() -> None:
    assert list(cut_shards([100, 100], 50)) == [slice(0, 1), slice(1, 2)]  # each alone is above the budget
    assert list(cut_shards([20] * 5, 50)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(cut_shards([50], 50)) == [slice(0, 1)]
    assert list(cut_shards([], 50)) == []


def test_errors(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def encode(self, texts: Sequence[str], side: str, **rest: object) -> np.ndarray:
            return np.where([[text == "a"] for text in texts], np.nan, np.zeros((len(texts), 5)))

    with pytest.raises(UserError, match=r"not finite \(NaN or infinite as float32\) for 'a'"):
        encode_texts(Broken(), TEXTS, RECIPE, tmp_path)
    assert not list(tmp_path.rglob("*.keys.npy"))
    encode_texts(FakeEncoder(), TEXTS, RECIPE, tmp_path)
    wider = FakeEncoder()
    wider.dim = 6
    with pytest.raises(UserError, match=r"shape \(6, 5\), expected \(6, 6\); delete the folder"):
        encode_texts(wider, TEXTS, RECIPE, tmp_path)
