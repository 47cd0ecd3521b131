"""Files that grow block by block and are read as memory maps: arrays of numbers, and lists of strings."""

import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from embedtrain.config.errors import disk_full_is_an_error


class ArrayFile:
    """A .npy file of one dimension, written from front to back; the header gets its length at the end."""

    def __init__(self, path: Path, dtype: str) -> None:
        """Start empty."""
        self.path, self.dtype, self.length = path, np.dtype(dtype), 0
        self.file = path.open("wb")
        self._header()

    def _header(self) -> None:
        """The header; numpy leaves room in it for the length to grow."""
        facts = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.file, facts)

    def add(self, values: np.ndarray | Sequence[float]) -> None:
        """Append numbers."""
        block = np.ascontiguousarray(values, self.dtype)
        self.file.write(block.data)
        self.length += len(block)

    def close(self) -> None:
        """Finish the file."""
        end = self.file.tell()
        self.file.seek(0)
        self._header()
        assert self.file.tell() + self.length * self.dtype.itemsize == end
        self.file.close()


def make_array(path: Path, dtype: np.dtype | str, shape: tuple[int, ...]) -> np.memmap:
    """A .npy file of zeros on disk, to be written anywhere; what it needs is taken at once.

    Raises UserError where the disk has no room: a write to a page that the disk cannot give would end the
    process by a signal.
    """
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    size = path.stat().st_size
    try:
        with disk_full_is_an_error(path, size), path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except BaseException:
        path.unlink()
        raise
    return array


def open_array(path: Path) -> np.ndarray:
    """The numbers in a .npy file, left on disk."""
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except SystemError:  # CPython before 3.11.8, where two threads parse headers at once (its issue 106905)
        return np.asarray(np.load(path, mmap_mode="r"))


class Strings(Sequence[str]):
    """Strings left on disk: `NAME.utf8` has their bytes end to end, `NAME_starts.npy` their places."""

    def __init__(self, folder: Path, name: str) -> None:
        """Open what `StringsFile` wrote."""
        self.starts = open_array(folder / f"{name}_starts.npy")
        with (folder / f"{name}.utf8").open("rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One string, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        start = index % len(self)
        return self.bytes[self.starts[start] : self.starts[start + 1]].decode()

    def take(self, ids: np.ndarray) -> list[str]:
        """Strings by number."""
        places = zip(self.starts[ids].tolist(), self.starts[ids + 1].tolist(), strict=True)
        return [self.bytes[start:end].decode() for start, end in places]


class StringsFile:
    """Writes what `Strings` reads."""

    def __init__(self, folder: Path, name: str) -> None:
        """Start empty."""
        self.bytes, self.end = (folder / f"{name}.utf8").open("wb"), 0
        self.starts = ArrayFile(folder / f"{name}_starts.npy", "<i8")
        self.starts.add([0])

    def add(self, strings: Iterable[str]) -> None:
        """Append strings."""
        encoded = [string.encode() for string in strings]
        ends = self.end + np.cumsum([len(part) for part in encoded], dtype=np.int64)
        self.bytes.write(b"".join(encoded))
        self.starts.add(ends)
        self.end = int(ends[-1]) if len(ends) else self.end

    def close(self) -> None:
        """Finish the files; a file without a byte could not be mapped."""
        self.bytes.write(b"\n")
        self.bytes.close()
        self.starts.close()
