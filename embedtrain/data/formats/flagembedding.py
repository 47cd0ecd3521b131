"""FlagEmbedding's jsonl: query, pos, neg, pos_scores, neg_scores, prompt, type; also GritLM's pairs in it."""

from collections.abc import Iterator
from typing import Any

from embedtrain.data.formats.record import Fault, Record, check_text, wrong
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.rows import Row

KEYS = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type")
# what its trainers know; another type is kept as it is written
TASKS = {
    "normal": "retrieval",
    "only_1neg": "retrieval",
    "symmetric_class": "classification",
    "symmetric_clustering": "clustering",
    "symmetric_sts": "sts",
}


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
