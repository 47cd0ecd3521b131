"""FlagEmbedding's jsonl: query, pos, neg, pos_scores, neg_scores, prompt, type; also GritLM's pairs in it."""

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from embedtrain.data.formats.record import Fault, Record, check_text, wrong
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.rows import Row

KEYS = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type")
# types that say the same as a task; another (only_1neg) is kept as it is written
TASKS = {
    "normal": "retrieval",
    "symmetric_class": "classification",
    "symmetric_clustering": "clustering",
    "symmetric_sts": "sts",
}
TYPES = {task: kind for kind, task in TASKS.items()}


def detect(sample: Sample) -> str | None:
    """Why these may be such rows."""
    return "keys 'query' and 'pos'" if sample.has("query", "pos") else None


def read(request: Request) -> Iterator[Placed]:
    """The rows of a request."""
    return request.make_rows(make_row)


def make_row(record: Record) -> Row:
    """The row of one line. Raises Fault."""
    instruction, query = split_pair("query", record.require("query", "a text"))
    if record.has("prompt"):
        instruction = record.text("prompt")
    kind = record.text("type") if record.has("type") else None
    return Row(
        query=query,
        positives=read_documents(record, "pos", instruction),
        negatives=read_documents(record, "neg", instruction) if record.has("neg") else (),
        positive_scores=record.scores("pos_scores"),
        negative_scores=record.scores("neg_scores"),
        instruction=instruction or None,
        task=TASKS.get(kind, kind) if kind else None,
    )


def read_documents(record: Record, key: str, instruction: str) -> tuple[str, ...]:
    """The documents under a key: texts, or GritLM's pairs of an instruction and a text."""
    documents = []
    for number, item in enumerate(record.items(key, "a list of texts")):
        own, text = split_pair(f"{key}[{number}]", item)
        if own and own != instruction:
            raise Fault(f"'{key}[{number}]': a document's instruction other than the query's cannot be kept")
        documents.append(text)
    return tuple(documents)


def split_pair(key: str, value: Any) -> tuple[str, str]:
    """(instruction, text) of a text, or of a pair of both."""
    if not isinstance(value, list):
        return "", check_text(key, value)
    if len(value) != 2:
        raise wrong(key, value, "a text, or a list of an instruction and a text")
    return check_text(f"{key}[0]", value[0]).strip(), check_text(f"{key}[1]", value[1])


def write_lines(path: Path | str, rows: Iterable[Row]) -> int:
    """Write a line for each row, whole or not at all, packed where the name ends in .gz; how many they are.

    A row's label, score and source have no place in this format and are left out. Equal rows, equal bytes.
    """
    path, number = Path(path), 0
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            with packed(file, path) as lines:
                for number, row in enumerate(rows, 1):  # noqa: B007 - counts them
                    lines.write((json.dumps(make_line(row), ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return number


def packed(file: BinaryIO, path: Path) -> AbstractContextManager[Any]:
    """What lines are written to: the file itself, or through gzip, the same bytes at any time."""
    return gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else nullcontext(file)


def make_line(row: Row) -> dict[str, Any]:
    """The values of one line; keys of scores, prompt and type only where the row has them."""
    line: dict[str, Any] = {"query": row.query, "pos": list(row.positives), "neg": list(row.negatives)}
    scores = {"pos_scores": row.positive_scores, "neg_scores": row.negative_scores}
    line |= {key: list(values) for key, values in scores.items() if values is not None}
    names = {"prompt": row.instruction, "type": TYPES.get(row.task or "", row.task)}
    return line | {key: name for key, name in names.items() if name}
