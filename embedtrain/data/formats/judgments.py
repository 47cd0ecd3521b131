"""Judgments of queries and documents, gathered into rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

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
    """The documents of one query, by id; `place` is that of its first judgment."""

    place: str
    positives: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)


def judged_rows(
    request: Request, judgments: Iterable[Judgment], queries: Texts, corpus: Texts
) -> Iterator[Placed]:
    """A row for each query with a positive, in the order of their first judgments; others are counted."""
    judged: dict[str, Judged] = {}
    for one in judgments:
        entry = judged.setdefault(one.query, Judged(one.place))
        (entry.positives if one.grade > 0 else entry.negatives).append(one.document)
    for query, documents in judged.items():
        if not documents.positives:
            request.left_out["queries without a document of a grade above 0"] += 1
            continue
        try:
            row = Row(
                query=queries.get("query-id", query),
                positives=tuple(corpus.get("corpus-id", name) for name in documents.positives),
                negatives=tuple(corpus.get("corpus-id", name) for name in documents.negatives),
            )
        except Fault as fault:
            request.problems.add(documents.place, str(fault))
        else:
            yield from request.checked(documents.place, row)
