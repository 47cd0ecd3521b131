"""The triplets of E5 and LLM2Vec: for each data set a jsonl of query, positive, negative, named after it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from embedtrain.data.formats.record import Record
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.rows import Row

KEYS = ("query", "positive", "negative")


def detect(sample: Sample) -> str | None:
    """Why these may be such triplets."""
    return "keys 'query', 'positive', 'negative' and no other" if set(sample.keys) == set(KEYS) else None


def read(request: Request) -> Iterator[Placed]:
    """The rows of a file, or of all files of a folder; each has the name of its file as source."""
    for part in request.parts():
        name = Path(part.path).name.split(".")[0]
        yield from part.make_rows(partial(make_row, source=name))


def make_row(record: Record, source: str) -> Row:
    """The row of one line. Raises Fault."""
    return Row(
        query=record.text("query"),
        positives=tuple(record.texts("positive")),
        negatives=tuple(record.texts("negative")) if record.has("negative") else (),
        source=source,
    )
