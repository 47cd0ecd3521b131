"""Data sets of the Hugging Face hub, and folders that `datasets` saved. Needs the extra `hub`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedtrain.config.errors import UserError, nearest
from embedtrain.data.formats.record import Record

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)?")
SAVED = ("dataset_dict.json", "state.json")


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return path.is_dir() and any((path / name).is_file() for name in SAVED)


def import_datasets(what: str) -> Any:
    """The library. Raises UserError where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError(f"{what}: reading it takes the extra 'hub': pip install 'embedtrain[hub]'") from None
    return datasets


def read_saved(folder: Path, split: str | None) -> Iterator[Record]:
    """The rows of a saved folder; of several splits, the one asked for, or `train`."""
    datasets = import_datasets(str(folder))
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: cannot be read: {error}") from None
    yield from read_splits(str(folder), saved, split)


def read_hub(name: str, split: str | None) -> Iterator[Record]:
    """The rows of `owner/name` or `owner/name/config`, streamed; of several splits as in a saved folder."""
    datasets = import_datasets(name)
    owner, title, *config = name.split("/")
    try:
        found = datasets.load_dataset(f"{owner}/{title}", *config, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{name}: no such file, and no data set of the hub that can be read: {error}"
        ) from None
    yield from read_splits(name, found, split)


def read_splits(name: str, found: Any, split: str | None) -> Iterator[Record]:
    """The rows of one split of a data set, or of a data set without splits."""
    if isinstance(found, Mapping):
        split = choose_split(name, list(found), split)
        name, found = f"{name}[{split}]", found[split]
    for number, values in enumerate(found, 1):
        yield Record(f"{name}: row {number}", values)


def choose_split(name: str, splits: list[str], split: str | None) -> str:
    """The split asked for; without one `train`, or the only one."""
    if split is None:
        split = "train" if "train" in splits or len(splits) != 1 else splits[0]
    if split not in splits:
        raise UserError(f"{name}: no split '{split}'; {nearest(split, splits)}; choose one with --split")
    return split
