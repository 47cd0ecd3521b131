"""sentence-transformers' columns: query, positive, negatives and a label, known by name or by position.

There the order of the columns counts, and no name but the label's. Here known names win; where none is known
the order counts too, but only on request: which column asks cannot be guessed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from embedtrain.config.errors import UserError
from embedtrain.data.formats.record import Fault, Record, parse_number, wrong
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.sample import Sample
from embedtrain.data.rows import Row

QUERIES = ("anchor", "query", "question", "sentence1", "text1", "premise")
POSITIVES = ("positive", "answer", "response", "document", "passage", "sentence2", "text2", "entailment")
NEGATIVE = re.compile(r"(negative|neg)(_?\d+)?|negatives|contradiction")
LABELS = ("label", "labels", "score", "scores")  # sentence-transformers takes the first of these
OF_OTHERS = (
    *("pos", "positives", "pos_doc", "positive_passages", "positive_document_ids"),
    *("document_ids", "messages", "rejected_response"),
)
TRIPLETS = {"query", "positive", "negative"}
LIKE_IDS = re.compile(r"id|idx|index|.*_(id|ids|idx)")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column is what."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    label: str | None = None


def detect(sample: Sample) -> str | None:
    """Why these may be such columns; None where their names do not say which is which."""
    layout = layout_by_name(sample.keys)
    if layout is None or sample.has_any(OF_OTHERS) or set(sample.keys) == TRIPLETS:
        return None
    return f"columns '{layout.query}' and '{layout.positive}'"


def read(request: Request) -> Iterator[Placed]:
    """The rows of a request; the first record says which column is what."""
    records = request.records()
    first = next(records, None)
    if first is None:
        return
    layout = layout_by_name(tuple(first.values)) or layout_by_position(first)
    yield from request.make_rows(lambda record: make_row(record, layout), chain([first], records))


def layout_by_name(names: Sequence[str]) -> Layout | None:
    """The layout, where a known name asks and another answers."""
    query = next((name for name in QUERIES if name in names), None)
    positive = next((name for name in POSITIVES if name in names), None)
    if query is None or positive is None:
        return None
    return Layout(query, positive, tuple(filter(NEGATIVE.fullmatch, names)), label_name(names))


def layout_by_position(first: Record) -> Layout:
    """The first column asks, the second answers, the others do not answer. Raises UserError."""
    label = label_name(tuple(first.values))
    names = [name for name in first.values if name != label]
    odd = [
        name for name in names if LIKE_IDS.fullmatch(name) or not isinstance(first.value(name), str | list)
    ]
    if odd or len(names) < 2:
        what = f"column '{odd[0]}' holds no text to learn from" if odd else "fewer than two columns of text"
        raise UserError(f"{first.place}: {what}; name the columns, as in --column query={names[0]}")
    return Layout(names[0], names[1], tuple(names[2:]), label)


def label_name(names: Sequence[str]) -> str | None:
    """The column that sentence-transformers takes for the label."""
    return next((name for name in LABELS if name in names), None)


def make_row(record: Record, layout: Layout) -> Row:
    """The row of one record. Raises Fault."""
    query, documents = record.text(layout.query), tuple(record.texts(layout.positive))
    given = [record.texts(name) for name in layout.negatives if record.has(name)]
    negatives = tuple(chain.from_iterable(given))
    if layout.label is None or not record.has(layout.label):
        return Row(query, documents, negatives)
    value = record.value(layout.label)
    if isinstance(value, list) and len(documents) > 1:
        return row_of_labelled_list(query, documents, record.numbers(layout.label), layout.label)
    if isinstance(value, list) or negatives:
        return row_with_scores(query, documents, negatives, record, layout.label)
    if isinstance(value, str) and not (record.only_text and isinstance(parse_number(value), float)):
        return Row(query, documents, label=record.text(layout.label))
    return Row(query, documents, score=record.number(layout.label))


def row_of_labelled_list(query: str, documents: Sequence[str], labels: Sequence[float], key: str) -> Row:
    """A list of documents with a list of labels: 1 answers, 0 does not."""
    if len(labels) != len(documents) or not set(labels) <= {0.0, 1.0}:
        raise Fault(
            f"'{key}': {len(labels)} labels for {len(documents)} documents; expected a 0 or 1 for each"
        )
    chosen = {
        wanted: [text for text, label in zip(documents, labels, strict=True) if label == wanted]
        for wanted in (0.0, 1.0)
    }
    return Row(query, tuple(chosen[1.0]), tuple(chosen[0.0]))


def row_with_scores(
    query: str, documents: tuple[str, ...], negatives: tuple[str, ...], record: Record, key: str
) -> Row:
    """A label beside negatives: a teacher's scores of all documents, or the positive's margin over each.

    Margins are kept as a score of 0 for the positive and minus the margin for a negative: what learns from
    them (margin_mse, distill_kl, distill_ce) sees differences only.
    """
    values = record.numbers(key) if isinstance(record.value(key), list) else (record.number(key),)
    if len(values) == 1 + len(negatives):
        return Row(query, documents, negatives, values[:1], values[1:])
    if len(values) == len(negatives):
        return Row(query, documents, negatives, (0.0,), tuple(-margin for margin in values))
    expected = f"{1 + len(negatives)} scores, or {len(negatives)} margins"
    raise wrong(key, record.value(key), expected)
