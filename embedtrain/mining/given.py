"""Given corpora: documents of files and folders, each text once, left on disk."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.data.formats.canonical import read_row
from embedtrain.data.formats.files import is_data_file, read_file
from embedtrain.data.formats.record import Fault, Record, passage_text
from embedtrain.data.formats.texts import one_of
from embedtrain.data.problems import Problems
from embedtrain.data.records import FILES, read_lines
from embedtrain.data.rows import text_key
from embedtrain.data.store import open_rows
from embedtrain.data.store.arrays import Strings, open_array
from embedtrain.data.store.build import BLOCK_ROWS, Interner
from embedtrain.show.progress import progress

NAME = "texts"
TEXT_KEYS = ("text", "passage", "contents", "document")


class Given:
    """Documents from outside the rows: `texts`, left on disk, and their int64 `keys`."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open what `write_given` wrote; none without a folder."""
        self.texts: Sequence[str] = Strings(folder, NAME) if folder else ()
        self.keys = open_array(folder / f"{NAME}_keys.npy") if folder else np.empty(0, np.int64)


def write_given(paths: Sequence[str], folder: Path) -> None:
    """Write the documents of all files and folders into a folder of their own.

    Raises UserError with all faults of the files.
    """
    problems = Problems()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    documents = documents_of(paths, problems)
    with progress("corpus", unit="document") as bar, closing(Interner(folder, NAME, text_key)) as interner:
        while block := list(islice(documents, BLOCK_ROWS)):
            interner.add(block)
            bar.advance(len(block))
    problems.require()


def documents_of(paths: Iterable[str], problems: Problems) -> Iterator[str]:
    """Every document, file after file; what cannot be read is added to the problems."""
    for name in paths:
        path = Path(name).expanduser()
        if all((path / part).is_file() for part in FILES):
            yield from (text for row in open_rows(path) for text in (*row.positives, *row.negatives))
            continue
        for file in files_of(path):
            yield from read_texts(file, problems)


def files_of(path: Path) -> list[Path]:
    """The file; of a BEIR folder its corpus, of another folder all that can be read, by name."""
    if not path.is_dir():
        return [path]
    inside = sorted(file for file in path.iterdir() if is_readable(file))
    corpus = [file for file in inside if file.name.startswith("corpus.")]
    if not inside:
        raise UserError(f"{path}: no file of documents in this folder; expected .txt, .jsonl, .parquet …")
    return corpus or inside


def is_readable(file: Path) -> bool:
    """Whether documents can be read from it, by its name."""
    return is_data_file(file) or (is_lines(file) and not file.name.startswith("."))


def is_lines(file: Path) -> bool:
    """Whether each line is a document."""
    return file.name.endswith((".txt", ".txt.gz", ".txt.zst"))


def read_texts(file: Path, problems: Problems) -> Iterator[str]:
    """The documents of a file: its lines, the texts of its records, the positives and negatives of rows."""
    if is_lines(file) and file.is_file():
        yield from filter(None, (line.strip() for _, line in read_lines(file, problems)))
        return
    for record in read_file(file, problems):
        try:
            yield from filter(str.strip, texts_in(record))
        except Fault as fault:
            problems.add(record.place, str(fault))


def texts_in(record: Record) -> Iterable[str]:
    """The documents of a row, or the one of another record, its title before it. Raises Fault for neither."""
    if record.has("positives"):
        row = read_row(record)
        return (*row.positives, *row.negatives)
    key = one_of(record, TEXT_KEYS)
    return (passage_text(key, {"title": record.value("title"), "text": record.value(key)}),)
