"""Tensors in safetensors files: mapped from the disk, written header first, then block after block.

Nothing here holds more than a block of rows; safetensors itself only writes what is all in memory.
"""

import json
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from embedtrain.artifacts import is_inside, put_in_place, read_json
from embedtrain.average.tensors import TensorInfo, Tensors
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
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"-\d+-of-(?P<count>\d+)\.safetensors")


def open_tensors(path: Path, stack: ExitStack) -> Tensors:
    """Tensors of a safetensors file, or of a folder's, mapped from the disk until `stack` closes.

    Raises UserError that names the file where one is missing, cut short or of another kind.
    """
    files = weight_files(path) if path.is_dir() else [path]
    info: dict[str, TensorInfo] = {}
    readers: dict[str, Any] = {}
    for file in files:
        opened = open_file(file, stack)
        for name in opened.keys():  # noqa: SIM118 (safe_open is no mapping)
            if name in info:
                raise UserError(f"{path}: tensor '{name}' stands in two files")
            part = opened.get_slice(name)
            info[name] = TensorInfo(known_dtype(part.get_dtype(), name, file), tuple(part.get_shape()))
            readers[name] = opened
    check_index(path / INDEX, info)

    def read_rows(name: str, start: int, stop: int) -> Tensor:
        rows: Tensor = readers[name].get_slice(name)[start:stop]
        return rows

    return Tensors(str(path), info, lambda name: readers[name].get_tensor(name), read_rows)


def weight_files(folder: Path) -> list[Path]:
    """The files with a folder's weights: those that its index names, else the one without an index.

    Raises UserError where one is not there.
    """
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(read_index(index).values()))
        for name in names:
            if not (folder / name).is_file():
                raise UserError(f"{index}: it names {name}, which is not there")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if any(SHARD.search(file.name) for file in folder.glob("*.safetensors")):
        raise UserError(f"{folder}: its weights are in several files, but {INDEX} is not there")
    pickles = any(folder.glob("*.bin"))
    raise UserError(f"{folder}: no {WEIGHTS} there" + (" (pickles are not read)" if pickles else ""))


def read_index(path: Path) -> dict[str, str]:
    """File of each tensor, as an index says. Raises UserError where a file is not in the index's folder."""
    try:
        places: dict[str, str] = read_json(path)["weight_map"]
        names = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: it is no index of weights; expected JSON with 'weight_map'") from None
    for name in names:
        if not is_inside(name):
            raise UserError(f"{path}: it names '{name}', which lies outside the folder")
    return places


def check_index(index: Path, info: dict[str, TensorInfo]) -> None:
    """Raise UserError where an index names tensors that no file has."""
    absent = [name for name in read_index(index) if name not in info] if index.is_file() else []
    if absent:
        raise UserError(f"{index}: it names {len(absent)} tensors that no file has, first {absent[0]}")


def open_file(file: Path, stack: ExitStack) -> Any:
    """One safetensors file, mapped. Raises UserError where it is not there or not whole."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        return stack.enter_context(safe_open(str(file), framework="pt"))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file}: it is not a whole safetensors file ({file.stat().st_size:,} bytes: {error})"
        ) from None


def known_dtype(name: str, tensor: str, file: Path) -> torch.dtype:
    """The dtype of a name in a header."""
    if name not in DTYPES:
        raise UserError(f"{file}: tensor '{tensor}' is {name}; known: {', '.join(DTYPES)}")
    return DTYPES[name]


def write_tensors(
    path: Path, tensors: Tensors, *, advance: Callable[[int], object] = lambda num_bytes: None
) -> None:
    """Write a safetensors file, header first, then block after block; whole or absent.

    `advance` is called with the bytes of each block.
    """
    names = sorted(tensors.info, key=lambda name: (-tensors.info[name].dtype.itemsize, name))
    aside = path.with_name(f"{path.name}.partial")
    with put_in_place(aside, path), aside.open("wb") as file:
        file.write(safetensors_header(tensors.only(names)))
        for name in names:
            for start, stop in tensors.info[name].blocks():
                block = tensors.rows(name, start, stop)
                check_block(block, tensors, name, stop - start)
                advance(file.write(raw_bytes(block)))
        file.flush()
        os.fsync(file.fileno())


def check_block(block: Tensor, tensors: Tensors, name: str, rows: int) -> None:
    """Raise ValueError where a reader does not give what it announced."""
    info = tensors.info[name]
    shape = (rows, *info.shape[1:]) if info.shape else ()
    if (block.dtype, tuple(block.shape)) != (info.dtype, shape):
        raise ValueError(f"{tensors.origin}: '{name}' was read as another shape or dtype than announced")


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor's values."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


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


def write_sharded(
    folder: Path,
    tensors: Tensors,
    max_bytes: int,
    *,
    advance: Callable[[int], object] = lambda num_bytes: None,
) -> list[str]:
    """`model.safetensors`, or several files with an index where it would exceed `max_bytes`; their names."""
    groups = split_by_bytes(tensors, max_bytes)
    if len(groups) == 1:
        write_tensors(folder / WEIGHTS, tensors, advance=advance)
        return [WEIGHTS]
    files = [f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1)]
    for file, names in zip(files, groups, strict=True):
        write_tensors(folder / file, tensors.only(names), advance=advance)
    places = {name: file for file, names in zip(files, groups, strict=True) for name in names}
    index = {"metadata": {"total_size": tensors.num_bytes}, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
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
