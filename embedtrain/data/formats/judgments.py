"""Judgments of queries and documents, gathered into rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from embedtrain.data.formats.record import Fault
from embedtrain.data.formats.request import Placed, Request
from embedtrain.data.formats.texts import Texts
from embedtrain.data.rows import Row


@dataclass(frozen=True, slots=True)
class Judgment:
    """How well a document answers a query; above 0 it does."""

    place: str
    query: str
    document: str
    grade: float


@dataclass(slots=True)
class Judged:
    """The judgments of one query, in their order."""

    positives: list[Judgment] = field(default_factory=list)
    negatives: list[Judgment] = field(default_factory=list)


def judged_rows(
    request: Request, judgments: Iterable[Judgment], queries: Texts, corpus: Texts
) -> Iterator[Placed]:
    """A row for each query with a positive, in the order of their first judgments; others are counted."""
    judged: dict[str, Judged] = {}
    for one in judgments:
        entry = judged.setdefault(one.query, Judged())
        (entry.positives if one.grade > 0 else entry.negatives).append(one)
    for documents in judged.values():
        if not documents.positives:
            request.left_out["queries without a document of a grade above 0"] += 1
            continue
        place = documents.positives[0].place
        query = list(find_texts(request, [documents.positives[0]], queries, "query"))
        positives = tuple(find_texts(request, documents.positives, corpus, "document"))
        negatives = tuple(find_texts(request, documents.negatives, corpus, "document"))
        found = len(query) + len(positives) + len(negatives)
        if found == 1 + len(documents.positives) + len(documents.negatives):
            yield from request.checked(place, Row(query[0], positives, negatives))


def find_texts(
    request: Request, judgments: Iterable[Judgment], texts: Texts, what: Literal["query", "document"]
) -> Iterator[str]:
    """The text of each judgment's query or document; an id that points nowhere is a problem."""
    for one in judgments:
        try:
            yield texts.get(f"{what} id", one.query if what == "query" else one.document)
        except Fault as fault:
            request.problems.add(one.place, str(fault))
