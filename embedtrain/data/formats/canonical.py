"""embedtrain's own rows, of every version: to join files, or to bring them to the newest version."""

from collections.abc import Iterator

from embedtrain.data.formats.record import Fault, Record
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row, make_row
from embedtrain.data.store import open_rows


def detect(sample: Sample) -> str | None:
    """Why these may be rows."""
    if sample.files("rows.parquet") and sample.files("texts.parquet"):
        return "rows.parquet and texts.parquet"
    return "keys 'query' and 'positives'" if sample.has("query", "positives") else None


def read(request: Request) -> Iterator[Placed]:
    """The rows of a file, or of a folder of rows and texts."""
    path = request.folder
    if (path / "rows.parquet").is_file():
        for number, row in enumerate(open_rows(path), 1):
            yield f"{path}: row {number}", row
        return
    yield from request.make_rows(read_row)


def read_row(record: Record) -> Row:
    """The row of a record. Raises Fault with all that is wrong."""
    own = Problems()
    row = make_row(dict(record.values), record.place, own)
    if row is None:
        raise Fault("; ".join(message.removeprefix(f"{record.place}: ") for message in own.messages))
    return row
