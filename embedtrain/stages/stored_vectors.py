"""Vectors that were made elsewhere: a folder of matrices, each with the file of its texts beside it.

Dimensions: N vectors of a side, K dims.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.artifacts import hash_file, read_json
from embedtrain.config.errors import UserError, found, shorten
from embedtrain.data.problems import Problems
from embedtrain.data.records import read_lines, read_objects
from embedtrain.data.rows import text_key
from embedtrain.data.store.arrays import make_array
from embedtrain.train.taught import SIDES, Written
from embedtrain.vectors import Side

NOTES = "vectors.json"
ENDINGS = (".txt", ".jsonl")
BLOCK = 8192  # vectors that are copied at a time


@dataclass(frozen=True, slots=True)
class Stored:
    """A side's matrix, left on disk, and the file of its texts."""

    side: Side
    matrix: Path
    texts: Path
    vectors_NK: np.ndarray


def open_stored(folder: Path) -> dict[Side, Stored]:
    """The sides of a folder. Raises UserError where matrices cannot be read or dims differ."""
    stored = {side: open_side(folder, side) for side in SIDES if (folder / f"{side}.npy").is_file()}
    if not stored:
        raise UserError(f"{folder}: found neither query.npy nor document.npy, expected one or both")
    dims = {side: one.vectors_NK.shape[1] for side, one in stored.items()}
    if len(set(dims.values())) > 1:
        raise UserError(
            f"{folder}: query.npy has vectors of {dims['query']} dims and document.npy of "
            f"{dims['document']}; expected the same of both, from one model"
        )
    return stored


def open_side(folder: Path, side: Side) -> Stored:
    """One matrix, checked to be one, and where its texts are, checked to be those it was made of."""
    matrix, texts = folder / f"{side}.npy", text_file(folder, side)
    try:
        vectors_NK = np.load(matrix, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{matrix}: cannot be read as a NumPy array: {error}") from None
    kind, shape = vectors_NK.dtype, vectors_NK.shape
    if vectors_NK.ndim != 2 or not vectors_NK.size or kind not in ("float16", "float32", "float64"):
        raise UserError(f"{matrix}: found {kind} of shape {shape}, expected floats of shape (texts, dims)")
    check_hash(folder, side, texts)
    return Stored(side, matrix, texts, vectors_NK)


def text_file(folder: Path, side: Side) -> Path:
    """The one file that holds the texts of a side."""
    names = [f"{side}{ending}" for ending in ENDINGS]
    there = [name for name in names if (folder / name).is_file()]
    if len(there) != 1:
        what = "both are there" if there else "neither is there"
        raise UserError(f"{folder}: {side}.npy needs its texts, one a row, in {' or '.join(names)}; {what}")
    return folder / there[0]


def check_hash(folder: Path, side: Side, texts: Path) -> None:
    """Raise UserError where `vectors.json` says that the vectors were made of another file of texts."""
    if not (folder / NOTES).is_file():
        return
    expected = noted_hash(folder / NOTES, side)
    if expected is not None and (actual := hash_file(texts)) != expected:
        raise UserError(
            f"{texts}: its SHA-256 is {actual}, and {folder / NOTES} expects {expected}: the vectors were "
            "made of other texts; encode these, or bring those back"
        )


def noted_hash(path: Path, side: Side) -> str | None:
    """The SHA-256 that is noted of a side's texts, if any."""
    try:
        notes: Any = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: broken JSON: {error}") from None
    entry = notes.get(side, {}) if isinstance(notes, dict) else notes
    sha256 = entry.get("sha256") if isinstance(entry, dict) else entry
    if sha256 is not None and not isinstance(sha256, str):
        expected = '{"query": {"sha256": "…"}, "document": {"sha256": "…"}}'
        raise UserError(f"{path}: under '{side}' found {found(entry)}, expected {expected}")
    return sha256


def read_texts(path: Path, problems: Problems) -> Iterator[str]:
    """The texts of a file in its order: lines as `embedtrain encode` reads them, or `text` of each object."""
    if path.suffix == ".txt":
        for _, line in read_lines(path, problems):
            yield from line.splitlines()
        return
    for place, value in read_objects(path, problems):
        if isinstance(text := value.get("text"), str):
            yield text
        else:
            problems.add(place, f"'text': found {found(text)}, expected text")


def read_keys(stored: Stored) -> np.ndarray:
    """int64 `text_key` of each row's text. Raises UserError where rows and texts are not equally many."""
    problems = Problems()
    keys_N = np.fromiter(map(text_key, read_texts(stored.texts, problems)), np.int64)
    problems.require()
    if len(keys_N) != len(stored.vectors_NK):
        raise UserError(
            f"{stored.matrix}: found {len(stored.vectors_NK):,} rows for the {len(keys_N):,} texts in "
            f"{stored.texts.name}; expected one each"
        )
    return keys_N


def copy_stored(stored: Stored, written: Written, precision: str, out: Path) -> None:
    """Write the vectors of the run's texts of this side in their order.

    Raises UserError where a text has none, or one that is not finite.
    """
    places = find_rows(stored, written)
    shape = (len(places), stored.vectors_NK.shape[1])
    copied = make_array(out, precision, shape)
    for start in range(0, len(places), BLOCK):
        rows = places[start : start + BLOCK]
        with np.errstate(over="ignore"):
            block = stored.vectors_NK[rows].astype(precision)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            place = int(np.argmin(finite))
            text = shorten(written.texts(stored.side)[start + place])
            raise UserError(
                f"{stored.matrix}: row {rows[place] + 1} is not finite (NaN or infinite as {precision}): "
                f"the vector of {text}"
            )
        copied[start : start + BLOCK] = block
    copied.flush()


def find_rows(stored: Stored, written: Written) -> np.ndarray:
    """The matrix's row of each of the run's texts of this side, int64; of a text in several, the first."""
    keys_N, wanted = read_keys(stored), written.keys(stored.side)
    distinct, first = np.unique(keys_N, return_index=True)
    places = np.minimum(np.searchsorted(distinct, wanted), len(distinct) - 1)
    absent = distinct[places] != wanted
    if absent.any():
        text = shorten(written.texts(stored.side)[int(np.argmax(absent))])
        raise UserError(
            f"{stored.texts}: {int(absent.sum()):,} of the run's {len(wanted):,} {stored.side} texts are not "
            f"there, first {text}; encode them too, or learn fewer"
        )
    return np.asarray(first[places])


def require_sides(folder: Path, stored: Mapping[Side, Stored], sides: list[Side]) -> None:
    """Raise UserError where the run has texts of a side without vectors."""
    for side in sides:
        if side not in stored:
            there = next(iter(stored))
            raise UserError(
                f"{folder}: found {there}.npy alone, and the run has {side} texts to learn; "
                f"add {side}.npy with its texts"
            )
