"""From a file or folder of rows to a RowStore, whose files are built once for each content."""

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np

from embedtrain.artifacts import HashCache, cache_folder, hash_file, hash_json, is_done, mark_done
from embedtrain.config.errors import UserError
from embedtrain.config.sources import Source
from embedtrain.data.parquet import open_parquet
from embedtrain.data.problems import Problems
from embedtrain.data.records import FILES, check_file, is_row_folder
from embedtrain.data.rows import stream_rows
from embedtrain.data.store.build import Builder, in_blocks
from embedtrain.data.store.folder import add_folder
from embedtrain.data.store.view import RowStore
from embedtrain.places import locked
from embedtrain.show.progress import progress

FORMAT = 1
QUICK_BYTES = 1 << 26  # files up to this are hashed each time: their time of change may be too coarse


def open_source(source: Source, name: str, seed: int) -> RowStore:
    """The rows of a source; of more than `max_rows`, so many drawn by (seed, name), in their own order."""
    rows = open_rows(source.rows)
    if source.max_rows is None or source.max_rows >= len(rows):
        return rows
    generator = np.random.default_rng(int(hash_json([seed, name, "max_rows"])[:16], 16))
    return rows.take(np.sort(generator.choice(len(rows), source.max_rows, replace=False)))


def open_rows(path: Path | str) -> RowStore:
    """The rows of a .parquet, .jsonl or .jsonl.gz file, or of a folder that `write_store` wrote.

    The first opening reads all of it and writes the store's files below the cache folder, under a lock; later
    ones only look whether the content is the same. Raises UserError with all that is wrong with the rows.
    """
    path = Path(path).expanduser()
    path = path if is_row_folder(path) else check_file(path)
    content = hash_json({"format": FORMAT, "files": hash_rows(path)})
    folder = cache_folder("rows") / content[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(f"{folder}.lock"):
        if not is_done(folder):
            aside = folder.with_name(f"{folder.name}.partial")
            for stale in (aside, folder):
                shutil.rmtree(stale, ignore_errors=True)
            build(path, aside)
            aside.replace(folder)
    return RowStore(folder, content)


def hash_rows(path: Path) -> list[str]:
    """Hashes of the files of rows; of large ones, remembered by size and time of change."""
    files = [path / name for name in FILES] if path.is_dir() else [path]
    known = HashCache(cache_folder("rows") / "hashes.json")
    hashes = [
        hash_file(file) if file.stat().st_size <= QUICK_BYTES else known.hash(file.resolve())
        for file in files
    ]
    known.save()
    return hashes


def build(path: Path, folder: Path) -> None:
    """Write the files of a RowStore; nothing is left where rows have faults."""
    problems = Problems()
    folder.mkdir(parents=True)
    try:
        with (
            closing(Builder(folder)) as builder,
            progress(f"open {path}", total=num_lines(path), unit="line") as bar,
        ):
            if path.is_dir():
                add_folder(path, builder, problems, bar)
            else:
                for block in in_blocks(stream_rows(path, problems)):
                    builder.add_rows(block)
                    bar.advance(len(block))
        problems.require()
        if not builder.num_rows:
            raise UserError(f"{path}: no rows; expected at least one")
        mark_done(folder, builder.facts())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def num_lines(path: Path) -> int | None:
    """Lines of the tables with the rows and their texts; unknown before a .jsonl file is read."""
    files = [path / name for name in FILES] if path.is_dir() else [path]
    if files[0].suffix != ".parquet":
        return None
    return sum(int(open_parquet(file).metadata.num_rows) for file in files)
