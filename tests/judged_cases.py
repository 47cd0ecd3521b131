"""Random sources with duplicates and holes, and what was mined and scored for them."""

import numpy as np
from slow_select import Case

from embedtrain.data.rows import Row
from embedtrain.mining.tables import Column, Mined

WORDS = list("abcdefghij")
NAMES = ("one", "two")


def make_case(seed: int) -> tuple[Case, dict[str, Column]]:
    """A source, its documents with duplicates, lists with duplicates, and two columns, half with holes.

    Multiples of 1/4 are exact in float32, and no score stands within rounding of a bound, unless on it.
    """
    rng = np.random.default_rng(seed)
    rows = [make_row(rng) for _ in range(rng.integers(1, 7))]
    documents = [make_text(rng) for _ in range(rng.integers(1, 14))]
    chosen = np.flatnonzero(rng.random(len(rows)) < 0.8)
    lengths = rng.integers(0, 9, len(chosen))
    present = np.arange(lengths.max(initial=0)) < lengths[:, None]
    ids = np.where(present, rng.integers(0, len(documents), present.shape), -1)
    ranks = np.where(present, rng.integers(1, 7, present.shape), 0).astype(np.int32)
    holes = rng.choice([0.0, 0.2])
    columns = {
        name: Column(
            np.where(present, make_scores(rng, present.shape, holes), np.float32(np.nan)),
            [make_scores(rng, (len(rows[number].positives),), holes / 2) for number in chosen],
        )
        for name in NAMES
    }
    mined = Mined(chosen, ids, ranks, {"one": columns["one"]})
    return Case(rows, documents, mined, bool(rng.random() < 0.5)), columns


def make_row(rng: np.random.Generator) -> Row:
    positives = tuple(make_text(rng) for _ in range(rng.choice([1, 1, 3])))
    return Row(
        make_text(rng, WORDS[:4]), positives, label=rng.choice(np.array([None, "x", "y", "z"], object))
    )


def make_text(rng: np.random.Generator, words: list[str] = WORDS) -> str:
    return f"{rng.choice(words)}{rng.choice(['', '', ' '])}"


def make_scores(rng: np.random.Generator, shape: tuple[int, ...], holes: float) -> np.ndarray:
    scores = rng.integers(-3, 5, shape) / 4
    return np.where(rng.random(shape) < holes, np.nan, scores).astype(np.float32)
