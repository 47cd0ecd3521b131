"""Texts by id, kept on disk: a corpus costs 16 bytes of memory a passage, and 24 while it is read."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedtrain.config.errors import shorten
from embedtrain.data.formats.record import Fault, Record, passage_text
from embedtrain.data.problems import Problems
from embedtrain.data.rows import text_key

BLOCK = 8192  # texts a block of the file
COLUMNS = pa.schema([("id", pa.string()), ("text", pa.string())])
ID_KEYS = ("docid", "_id", "id", "document_id", "query_id", "pid", "qid")
TEXT_KEYS = ("text", "query", "passage", "contents")
Entry = tuple[str, str, str]  # place, id, text


class Texts:
    """Looks texts up by id. `origin` names their file where an id points nowhere."""

    def __init__(self, entries: Iterable[Entry], origin: str, problems: Problems) -> None:
        """Write all entries to a file that goes away with this object; an id given twice is a problem."""
        self.origin = origin
        keys = array("q")
        with tempfile.TemporaryDirectory(prefix="embedtrain-") as folder:
            path = Path(folder) / "texts.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, COLUMNS) as writer:
                for block in blocks(entries):
                    keys.extend(text_key(id) for _, id, _ in block)
                    writer.write_batch(
                        pa.record_batch([[e[1] for e in block], [e[2] for e in block]], COLUMNS)
                    )
            # the mapping keeps the file's bytes after its name is gone
            self.batches = pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_batches()
        key_M = np.frombuffer(keys, np.int64) if keys else np.empty(0, np.int64)
        self.order_M = np.argsort(key_M, kind="stable")
        self.sorted_M = key_M[self.order_M]
        self.report_repeated(problems)

    def __len__(self) -> int:
        return len(self.sorted_M)

    def entry(self, number: int) -> tuple[str, str]:
        """(id, text) by place in the file."""
        batch = self.batches[number // BLOCK]
        return batch.column(0)[number % BLOCK].as_py(), batch.column(1)[number % BLOCK].as_py()

    def report_repeated(self, problems: Problems) -> None:
        """Add a problem for each id that names two different texts."""
        for place in np.flatnonzero(self.sorted_M[1:] == self.sorted_M[:-1]):
            (first, text), (second, other) = (self.entry(int(n)) for n in self.order_M[place : place + 2])
            if first == second and text != other:
                problems.add(
                    self.origin, f"id {shorten(first)} names two texts, {shorten(text)} and {shorten(other)}"
                )

    def get(self, key: str, id: str) -> str:
        """The text of an id that stands under `key`. Raises Fault where there is none."""
        wanted = text_key(id)
        place = int(np.searchsorted(self.sorted_M, wanted))
        while place < len(self.sorted_M) and self.sorted_M[place] == wanted:
            name, text = self.entry(int(self.order_M[place]))
            if name == id:
                return text
            place += 1
        raise Fault(f"'{key}': {shorten(id)} is not among the {len(self):,} ids of {self.origin}")


def blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries, a block at a time."""
    rest = iter(entries)
    while block := list(islice(rest, BLOCK)):
        yield block


def named_entries(records: Iterable[Record], problems: Problems) -> Iterator[Entry]:
    """(place, id, text) of records with an id and a text, and perhaps a title before it."""
    for record in records:
        try:
            yield record.place, record.name(one_of(record, ID_KEYS)), record_text(record)
        except Fault as fault:
            problems.add(record.place, str(fault))


def record_text(record: Record) -> str:
    """The text of a record, its title before it."""
    key = one_of(record, TEXT_KEYS)
    text = record.text(key)
    return passage_text(key, {"title": record.value("title"), "text": text}) if record.has("title") else text


def one_of(record: Record, keys: tuple[str, ...]) -> str:
    """The first of the keys that has a value. Raises Fault where none has."""
    for key in keys:
        if record.has(key):
            return key
    found = ", ".join(f"'{name}'" for name in record.values)
    raise Fault(f"none of {', '.join(keys)} has a value; found {found or 'no keys'}")
