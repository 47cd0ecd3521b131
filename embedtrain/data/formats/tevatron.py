"""Tevatron: passages inline (v1, RLHN), or ids of documents and a corpus of them (v2)."""

from collections.abc import Iterator

from embedtrain.data.formats.record import Fault, Record, check_number, passage_text
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.formats.texts import Texts, one_of
from embedtrain.data.rows import Row

INLINE = ("positive_passages", "negative_passages")
BY_ID = ("positive_document_ids", "negative_document_ids")
KEYS = ("query_id", "query", "query_text", *INLINE, *BY_ID, "source")
MEDIA = ("query_image", "query_video", "query_audio")


def detect_inline(sample: Sample) -> str | None:
    """Why these may be rows with passages in them."""
    return f"key '{INLINE[0]}'" if sample.has(INLINE[0]) else None


def detect_by_id(sample: Sample) -> str | None:
    """Why these may be rows with ids of documents."""
    return f"key '{BY_ID[0]}'" if sample.has(BY_ID[0]) else None


def read_inline(request: Request) -> Iterator[Placed]:
    """The rows of a request whose passages stand in the rows."""
    return request.make_rows(inline_row)


def inline_row(record: Record) -> Row:
    """The row of one line, with the scores of its passages where all have one. Raises Fault."""
    passages = [record.items(key, "a list of passages") if record.has(key) else [] for key in INLINE]
    texts = [
        tuple(passage_text(f"{key}[{n}]", item) for n, item in enumerate(items))
        for key, items in zip(INLINE, passages, strict=True)
    ]
    scored = [item.get("score") is not None for items in passages for item in items if isinstance(item, dict)]
    scores: list[tuple[float, ...] | None] = [None, None]
    if scored and all(scored):
        scores = [
            tuple(check_number(f"{key}[{n}].score", item["score"]) for n, item in enumerate(items)) or None
            for key, items in zip(INLINE, passages, strict=True)
        ]
    return Row(read_query(record), texts[0], texts[1], scores[0], scores[1], source=read_source(record))


def read_by_id(request: Request) -> Iterator[Placed]:
    """The rows of a request whose documents stand in a corpus of docid, title and text."""
    corpus = request.corpus_texts("its documents are ids")
    return request.make_rows(lambda record: row_by_id(record, corpus))


def row_by_id(record: Record, corpus: Texts) -> Row:
    """The row of one line. Raises Fault."""
    texts = [
        tuple(corpus.get(key, name) for name in record.names(key)) if record.has(key) else () for key in BY_ID
    ]
    return Row(read_query(record), texts[0], texts[1], source=read_source(record))


def read_query(record: Record) -> str:
    """The query; only text can be learned from. Raises Fault."""
    media = [key for key in MEDIA if record.has(key)]
    if media and not record.has("query") and not record.has("query_text"):
        raise Fault(f"'{media[0]}': the query is no text")
    return record.text(one_of(record, ("query", "query_text")))


def read_source(record: Record) -> str | None:
    """What the row says of its origin."""
    return record.text("source") if record.has("source") else None
