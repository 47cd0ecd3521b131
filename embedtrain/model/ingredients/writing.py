"""Merged tensors as a folder of the kind of the first ingredient: whole, or not there at all."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedtrain.artifacts import read_json, write_json
from embedtrain.average import Tensors, write_sharded, write_tensors
from embedtrain.config.errors import UserError, disk_full_is_an_error
from embedtrain.model.checkpoint import DENSE, WEIGHTS, Saved, write_spec
from embedtrain.model.export import MAX_SHARD_BYTES
from embedtrain.model.ingredients.card import write_soup_card
from embedtrain.model.ingredients.opening import Ingredient
from embedtrain.model.safe_files import read_modules
from embedtrain.show.progress import progress

PROVENANCE = "soup.json"
COPIED = {".json", ".txt", ".model", ".vocab"}
LEFT_OUT = {"model.safetensors.index.json", "chat_template.json", "parity.json", "adapter_config.json"}
MEGABYTE = 10**6


def write_merged(tensors: Tensors, first: Ingredient, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write the folder aside, block of rows by block of rows, then rename it.

    A checkpoint or an adapter gives a full checkpoint, an export an export; all but the weights is as in
    `first`. `provenance` goes into `soup.json` and, of an export, into its card. Raises UserError where the
    folder is there already, or the disk is full.
    """
    with aside(folder) as partial, progress("write", total=megabytes(tensors), unit="megabyte") as bar:
        write_json(partial / PROVENANCE, provenance)
        write = write_export if first.kind == "export" else write_checkpoint
        write(tensors, first, partial, provenance, count_megabytes(bar.advance))


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` at the end, and is removed where anything goes wrong.

    Raises UserError where the folder is there already, or the disk is full.
    """
    if folder.exists():
        raise UserError(f"{folder}: it is there already; a soup never overwrites a model")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_full_is_an_error(folder):
            partial.mkdir(parents=True)
            yield partial
            partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def megabytes(tensors: Tensors) -> int:
    """Their size."""
    return tensors.num_bytes // MEGABYTE


def count_megabytes(advance: Callable[[int], object]) -> Callable[[int], None]:
    """Tell of whole megabytes, from counts of bytes."""
    written = 0

    def add(num_bytes: int) -> None:
        nonlocal written
        before, written = written // MEGABYTE, written + num_bytes
        advance(written // MEGABYTE - before)

    return add


def write_checkpoint(
    tensors: Tensors,
    first: Ingredient,
    folder: Path,
    provenance: Mapping[str, Any],
    advance: Callable[[int], None],
) -> None:
    """A checkpoint that holds all weights; `encoder.json` last."""
    write_tensors(folder / WEIGHTS, tensors, advance=advance)
    for number, place in enumerate(first.dense_folders):
        write_dense(tensors, number, place, folder / f"dense_{number}")
    first.config.architectures = [first.architecture]
    write_spec(folder, Saved(first.spec, None, None, first.dtype), first.tokenizer, first.config)


def write_export(
    tensors: Tensors,
    first: Ingredient,
    folder: Path,
    provenance: Mapping[str, Any],
    advance: Callable[[int], None],
) -> None:
    """A sentence-transformers folder."""
    modules = {module.path for module in read_modules(first.folder)}
    for path in sorted({"", *modules}):
        copy_settings(first.folder / path, folder / path)
    names = [name for name in tensors.info if not name.startswith(DENSE)]
    backbone = folder / first.backbone_folder.relative_to(first.folder)
    write_sharded(backbone, tensors.only(names), MAX_SHARD_BYTES, advance=advance)
    config = read_json(backbone / "config.json")
    write_json(backbone / "config.json", config | {"architectures": [first.architecture]})
    for number, place in enumerate(first.dense_folders):
        write_dense(tensors, number, place, folder / place.relative_to(first.folder))
    write_soup_card(first, provenance, folder / "README.md")


def copy_settings(source: Path, target: Path) -> None:
    """The files of one module that are not weights; a chat template stays behind."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix in COPIED and file.name not in {*LEFT_OUT, PROVENANCE}:
            shutil.copyfile(file, target / file.name)
    settings = target / "tokenizer_config.json"
    if settings.is_file():
        write_json(settings, {k: v for k, v in read_json(settings).items() if k != "chat_template"})


def write_dense(tensors: Tensors, number: int, place: Path, target: Path) -> None:
    """One Dense module: the settings of the first, the merged weights."""
    prefix = f"{DENSE}{2 * number}."
    named = {f"linear.{n.removeprefix(prefix)}": n for n in tensors.info if n.startswith(prefix)}
    target.mkdir(exist_ok=True)
    shutil.copyfile(place / "config.json", target / "config.json")
    write_tensors(target / WEIGHTS, tensors.renamed(named))
