"""Named tensors read and written one at a time.

Nothing here holds more than a few copies of the largest tensor: a file's header is written first, from shapes
and dtypes alone, then each tensor is read, changed, written and forgotten.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from embedtrain.config.errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor before it is read."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of its values."""
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Tensors:
    """Named tensors behind a reader. `origin` names them in errors; `read` returns one, by name."""

    origin: str
    info: Mapping[str, TensorInfo]
    read: Callable[[str], Tensor]

    @property
    def num_bytes(self) -> int:
        """Size of all values."""
        return sum(info.num_bytes for info in self.info.values())

    def cast(self, dtype: torch.dtype) -> "Tensors":
        """The same tensors, floating ones rounded to `dtype` as they are read."""
        info = {
            name: TensorInfo(dtype if i.dtype.is_floating_point else i.dtype, i.shape)
            for name, i in self.info.items()
        }
        return Tensors(self.origin, info, lambda name: self.read(name).to(info[name].dtype))

    def only(self, names: Sequence[str]) -> "Tensors":
        """Some of the tensors."""
        return Tensors(self.origin, {name: self.info[name] for name in names}, self.read)


def tensors_in_memory(tensors: Mapping[str, Tensor], origin: str) -> Tensors:
    """Tensors that are there already."""
    info = {name: TensorInfo(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    return Tensors(origin, info, tensors.__getitem__)


def open_tensors(path: Path, stack: ExitStack) -> Tensors:
    """Tensors of a safetensors file, or of all in a folder, mapped from the disk until `stack` closes."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no safetensors file there")
    info: dict[str, TensorInfo] = {}
    readers: dict[str, Callable[[str], Tensor]] = {}
    for file in files:
        opened = stack.enter_context(safe_open(str(file), framework="pt"))
        for name in opened.keys():  # noqa: SIM118 (safe_open is no mapping)
            if name in info:
                raise UserError(f"{path}: tensor '{name}' stands in two files")
            part = opened.get_slice(name)
            info[name] = TensorInfo(DTYPES[part.get_dtype()], tuple(part.get_shape()))
            readers[name] = opened.get_tensor
    return Tensors(str(path), info, lambda name: readers[name](name))


def check_same_tensors(one: Tensors, other: Tensors) -> None:
    """Raise UserError naming the tensors that only one has, or that differ in shape or dtype."""
    problems = [f"only in {one.origin}: {name}" for name in one.info if name not in other.info]
    problems += [f"only in {other.origin}: {name}" for name in other.info if name not in one.info]
    for name, info in one.info.items():
        if name in other.info and other.info[name] != info:
            problems.append(
                f"{name}: {describe(info)} in {one.origin}, {describe(other.info[name])} in {other.origin}"
            )
    if problems:
        more = f"\n  and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        listed = "\n  ".join(problems[:MAX_LISTED])
        raise UserError(f"checkpoints do not hold the same tensors:\n  {listed}{more}")


def describe(info: TensorInfo) -> str:
    """Dtype and shape, for people: `float32 4x8`."""
    return f"{str(info.dtype).removeprefix('torch.')} {'x'.join(map(str, info.shape)) or 'scalar'}"


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file, header first, then one tensor after the other; whole or absent."""
    names = sorted(tensors.info, key=lambda name: (-tensors.info[name].dtype.itemsize, name))
    aside = path.with_name(f"{path.name}.partial")
    with aside.open("wb") as file:
        file.write(safetensors_header(tensors.only(names)))
        for name in names:
            tensor = tensors.read(name)
            if TensorInfo(tensor.dtype, tuple(tensor.shape)) != tensors.info[name]:
                raise ValueError(
                    f"{tensors.origin}: '{name}' was read as another shape or dtype than announced"
                )
            file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def safetensors_header(tensors: Tensors) -> bytes:
    """Length, then JSON with each tensor's dtype, shape and place, padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, info in tensors.info.items():
        start, end = end, end + info.num_bytes
        dtype = DTYPE_NAMES[info.dtype]
        header[name] = {"dtype": dtype, "shape": list(info.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_sharded(folder: Path, tensors: Tensors, max_bytes: int) -> list[str]:
    """`model.safetensors`, or several files with an index where it would exceed `max_bytes`; their names."""
    groups = split_by_bytes(tensors, max_bytes)
    if len(groups) == 1:
        write_tensors(folder / "model.safetensors", tensors)
        return ["model.safetensors"]
    files = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    for file, names in zip(files, groups, strict=True):
        write_tensors(folder / file, tensors.only(names))
    places = {name: file for file, names in zip(files, groups, strict=True) for name in names}
    index = {"metadata": {"total_size": tensors.num_bytes}, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return files


def split_by_bytes(tensors: Tensors, max_bytes: int) -> list[list[str]]:
    """Names in order, cut into groups of at most `max_bytes`; a larger tensor stands alone."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, info in tensors.info.items():
        if groups[-1] and used + info.num_bytes > max_bytes:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += info.num_bytes
    return groups
