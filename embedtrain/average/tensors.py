"""Named tensors behind readers: whole, or a block of rows at a time.

Files are mapped, not loaded: what was read of them counts as memory of the file, which the system may drop.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from embedtrain.config.errors import UserError

BLOCK = 1 << 19
"""Numbers in a block of rows: 4 MB in float64. A larger row is a block of its own."""
MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_numbers(self) -> int:
        """Its values."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Their size."""
        return self.num_numbers * self.dtype.itemsize

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First row and the row after the last of each block; they depend on the shape alone."""
        rows = self.shape[0] if self.shape else 1
        height = max(1, BLOCK // max(1, prod(self.shape[1:])))
        yield from ((start, min(start + height, rows)) for start in range(0, rows, height))


@dataclass(frozen=True, slots=True)
class Tensors:
    """Named tensors behind a reader. `origin` names them in errors; `read` returns one, by name.

    `read_rows` returns rows of one, from a first to before a last, of those readers that can do with less
    than the whole.
    """

    origin: str
    info: Mapping[str, TensorInfo]
    read: Callable[[str], Tensor]
    read_rows: Callable[[str, int, int], Tensor] | None = None

    @property
    def num_bytes(self) -> int:
        """Size of all values."""
        return sum(info.num_bytes for info in self.info.values())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of one tensor; a scalar is its own only row."""
        shape = self.info[name].shape
        if not shape or (start, stop) == (0, shape[0]):
            return self.read(name)
        return self.read_rows(name, start, stop) if self.read_rows else self.read(name)[start:stop]

    def blocks(self, name: str) -> Iterator[Tensor]:
        """One tensor, block after block."""
        return (self.rows(name, start, stop) for start, stop in self.info[name].blocks())

    def cast(self, dtype: torch.dtype) -> "Tensors":
        """The same tensors, floating ones rounded to `dtype` as they are read."""
        info = {
            name: TensorInfo(dtype if i.dtype.is_floating_point else i.dtype, i.shape)
            for name, i in self.info.items()
        }
        return Tensors(
            self.origin,
            info,
            lambda name: self.read(name).to(info[name].dtype),
            lambda name, start, stop: self.rows(name, start, stop).to(info[name].dtype),
        )

    def only(self, names: Sequence[str]) -> "Tensors":
        """Some of the tensors."""
        return self.renamed({name: name for name in names})

    def renamed(self, names: Mapping[str, str]) -> "Tensors":
        """Those tensors that `names` maps new names to."""
        return Tensors(
            self.origin,
            {new: self.info[old] for new, old in names.items()},
            lambda name: self.read(names[name]),
            lambda name, start, stop: self.rows(names[name], start, stop),
        )

    def beside(self, other: "Tensors") -> "Tensors":
        """These and the others, under the origin of these."""

        def home(name: str) -> Tensors:
            return other if name in other.info else self

        return Tensors(
            self.origin,
            {**self.info, **other.info},
            lambda name: home(name).read(name),
            lambda name, start, stop: home(name).rows(name, start, stop),
        )


def tensors_in_memory(tensors: Mapping[str, Tensor], origin: str) -> Tensors:
    """Tensors that are there already."""
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    return Tensors(origin, info, tensors.__getitem__)


def tensors_by_rows(
    origin: str, info: Mapping[str, TensorInfo], read_rows: Callable[[str, int, int], Tensor]
) -> Tensors:
    """Tensors computed a block at a time; the whole is its blocks, one after the other."""

    def read(name: str) -> Tensor:
        blocks = [read_rows(name, start, stop) for start, stop in info[name].blocks()]
        if not blocks:
            return torch.empty(info[name].shape, dtype=info[name].dtype)
        return torch.cat(blocks) if len(blocks) > 1 else blocks[0]

    return Tensors(origin, info, read, read_rows)


def check_same_tensors(one: Tensors, other: Tensors, *, dtypes: bool = True) -> None:
    """Raise UserError naming the tensors that only one has, or that differ in shape or dtype."""
    problems = differences(one, other, dtypes)
    if problems:
        more = f"\n  and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        listed = "\n  ".join(problems[:MAX_LISTED])
        raise UserError(f"checkpoints do not hold the same tensors:\n  {listed}{more}")


def differences(one: Tensors, other: Tensors, dtypes: bool) -> list[str]:
    """A line for each tensor that only one has, or that differs in shape or, where asked, in dtype."""
    lines = [f"only in {one.origin}: {name}" for name in one.info if name not in other.info]
    lines += [f"only in {other.origin}: {name}" for name in other.info if name not in one.info]
    for name, info in one.info.items():
        also = other.info.get(name, info)
        if also.shape != info.shape or (dtypes and also.dtype != info.dtype):
            lines.append(f"{name}: {describe(info)} in {one.origin}, {describe(also)} in {other.origin}")
    return lines


def describe(info: TensorInfo) -> str:
    """Dtype and shape, for people: `float32 4x8`."""
    return f"{str(info.dtype).removeprefix('torch.')} {'x'.join(map(str, info.shape)) or 'scalar'}"
