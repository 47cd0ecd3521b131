"""The shards of one recipe: two files each, the vectors and, written last, the keys of their texts.

Dimensions: N keys, D dims.
"""

import io
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import UserError
from embedtrain.data.store.arrays import make_array


def keys_file(folder: Path, keys: np.ndarray) -> Path:
    """The file that is there once the shard of these keys is whole."""
    return folder / f"{blake2b(keys.tobytes(), digest_size=8).hexdigest()}.keys.npy"


def write_shard(folder: Path, keys: np.ndarray, vectors_ND: np.ndarray) -> None:
    """Vectors first, keys last: a shard is whole once its keys are there."""
    path = keys_file(folder, keys)
    write_atomic(_vectors_file(path), _npy(vectors_ND))
    write_atomic(path, _npy(keys))


def stored_keys(folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """The file of vectors and the keys of each whole shard, by name."""
    for path in sorted(folder.glob("*.keys.npy")):
        yield _vectors_file(path), np.load(path)


def find_stored(folder: Path, keys: np.ndarray) -> np.ndarray:
    """bool (N,): which of the sorted, different keys have a vector in the folder."""
    found = np.zeros(len(keys), bool)
    for _, stored in stored_keys(folder):
        found[_meet(keys, np.arange(len(keys)), stored)[0]] = True
    return found


def read_vectors(
    folder: Path, keys: np.ndarray, dim: int, out: Path | None = None, dtype: str = "float32"
) -> np.ndarray:
    """(N, D) vectors of the keys, in their order; with `out`, a memory map of that new file.

    Raises UserError where one lacks, or has other dims.
    """
    vectors_ND = _empty((len(keys), dim), dtype, out)
    found = np.zeros(len(keys), bool)
    order = np.argsort(keys, kind="stable")
    for shard, stored in stored_keys(folder):
        matrix = np.load(shard, mmap_mode="r")
        if matrix.shape != (len(stored), dim):
            raise UserError(
                f"{shard}: shape {matrix.shape}, expected {(len(stored), dim)}; delete the folder {folder}"
            )
        places, rows = _meet(keys, order, stored)
        vectors_ND[places] = matrix[rows]
        found[places] = True
    if not found.all():
        lacking = f"{int((~found).sum())} of {len(keys)}"
        raise UserError(
            f"{folder}: no vector for {lacking} texts; delete the folder, and they are made again"
        )
    return vectors_ND


def _meet(keys: np.ndarray, order: np.ndarray, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `keys` whose key stands in `stored`, and where; `order` sorts `keys`."""
    ordered = keys[order]
    first = np.searchsorted(ordered, stored, "left")
    counts = np.searchsorted(ordered, stored, "right") - first
    rows = np.repeat(np.arange(len(stored)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[first[rows] + within], rows


def _vectors_file(keys: Path) -> Path:
    return keys.with_name(keys.name.replace(".keys.npy", ".vectors.npy"))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _empty(shape: tuple[int, int], dtype: str, out: Path | None) -> np.ndarray:
    if out is None:
        return np.empty(shape, dtype)
    out.parent.mkdir(parents=True, exist_ok=True)
    return make_array(out, dtype, shape)
