"""ms-swift: messages, positive_messages, negative_messages; before that query, response, rejected_response.

A label is a grade of the pair. What a system message says to a query is the row's instruction; before a
document it is a part of the text, as ms-swift's template joins them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from embedtrain.data.formats.record import Fault, Record, check_text, wrong
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.rows import Row

KEYS = ("messages", "positive_messages", "negative_messages", "label")
OLD_KEYS = ("query", "response", "rejected_response", "label", "system")
MEDIA = ("<image>", "<video>", "<audio>")
ROLES = ("user",), ("system", "user")


def detect(sample: Sample) -> str | None:
    """Why these may be messages."""
    return "keys 'messages' and 'positive_messages'" if sample.has("messages", "positive_messages") else None


def detect_old(sample: Sample) -> str | None:
    """Why these may be the rows of its earlier versions."""
    return "keys 'query', 'response', 'rejected_response'" if sample.has(*OLD_KEYS[:3]) else None


def read(request: Request) -> Iterator[Placed]:
    """The rows of a request."""
    return request.make_rows(make_row)


def make_row(record: Record) -> Row:
    """The row of one line of messages. Raises Fault."""
    instruction, query = read_messages("messages", record.require("messages", "a list of messages"))
    return Row(
        query=query,
        positives=read_documents(record, "positive_messages"),
        negatives=read_documents(record, "negative_messages") if record.has("negative_messages") else (),
        score=record.number("label") if record.has("label") else None,
        instruction=instruction or None,
    )


def read_documents(record: Record, key: str) -> tuple[str, ...]:
    """A text of each list of messages under a key, its system message before it."""
    documents = []
    for number, messages in enumerate(record.items(key, "a list of lists of messages")):
        system, text = read_messages(f"{key}[{number}]", messages)
        documents.append(f"{system} {text}" if system else text)
    return tuple(documents)


def read_messages(key: str, messages: Any) -> tuple[str, str]:
    """(system message or nothing, text) of one user message with perhaps a system message before it."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise wrong(key, messages, "a list of messages with role and content")
    roles = tuple(message.get("role") for message in messages)
    if roles not in ROLES:
        raise Fault(
            f"'{key}': found the roles {', '.join(map(str, roles))}; expected user, or system and user"
        )
    texts = [check_text(f"{key}[{n}].content", message.get("content")) for n, message in enumerate(messages)]
    refuse_media(key, texts)
    return (texts[0] if len(texts) == 2 else ""), texts[-1]


def refuse_media(key: str, texts: Sequence[str]) -> None:
    """Raise Fault where a text stands for a picture, a film or a sound."""
    for mark in MEDIA:
        if any(mark in text for text in texts):
            raise Fault(f"'{key}': found {mark}; only text can be learned from")


def read_old(request: Request) -> Iterator[Placed]:
    """The rows of a request in the earlier form."""
    return request.make_rows(old_row)


def old_row(record: Record) -> Row:
    """The row of one line of the earlier form. Raises Fault."""
    negatives = record.texts("rejected_response") if record.has("rejected_response") else []
    texts = record.text("query"), record.text("response")
    refuse_media("query", [*texts, *negatives])
    return Row(
        query=texts[0],
        positives=(texts[1],),
        negatives=tuple(negatives),
        score=record.number("label") if record.has("label") else None,
        instruction=record.text("system") if record.has("system") else None,
    )
