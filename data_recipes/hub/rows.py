"""Records of published sets as rows: what several sets share."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from data_recipes.hub.card import MakeRows
from embedtrain.data.convert.tasks import convert_records
from embedtrain.data.formats.record import Fault, Record
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row

PLACE = re.compile(
    r"(?:\[([^\]]+)\]|([^/\\]+?)(?:-\d+-of-\d+)?\.(?:jsonl|parquet|json)(?:\.gz|\.zst)?):(?: row )?(\d+)$"
)
Scored = list[tuple[str, float | None]]


def of_task(task: str, columns: dict[str, str] | None = None) -> MakeRows:
    """Rows by the conversion of a task; `columns`: the task's name of a column → the set's."""

    def make_rows(records: Iterable[Record], problems: Problems) -> Iterator[Row]:
        return convert_records(task, (renamed(record, columns or {}) for record in records), problems)

    return make_rows


def renamed(record: Record, columns: dict[str, str]) -> Record:
    """The record with its columns under the names of a task as well."""
    values = dict(record.values)
    values.update({ours: values.pop(theirs) for ours, theirs in columns.items() if theirs in values})
    return replace(record, values=values)


def one_by_one(make: Callable[[Record], Row]) -> MakeRows:
    """A row of each record, cleaned. A row that has no positive left is left out."""

    def make_rows(records: Iterable[Record], problems: Problems) -> Iterator[Row]:
        for record in records:
            try:
                row = cleaned(make(record))
            except Fault as fault:
                problems.add(record.place, str(fault))
            else:
                if row.positives and row.query.strip():
                    yield row

    return make_rows


def part_of(record: Record) -> tuple[str, int]:
    """(split or stem of the file, number in it from 1) of a record. Raises Fault for another place."""
    match = PLACE.search(record.place)
    if match is None:
        raise Fault("the place names no split and no file")
    return match[1] or match[2], int(match[3])


def cleaned(row: Row) -> Row:
    """The row without blank documents, documents that come twice, and negatives that are positives."""
    positives = distinct(scored(row.positives, row.positive_scores), set())
    taken = {text.strip() for text, _ in positives}
    negatives = distinct(scored(row.negatives, row.negative_scores), taken)
    return replace(
        row,
        positives=tuple(text for text, _ in positives),
        negatives=tuple(text for text, _ in negatives),
        positive_scores=scores_of(positives, row.positive_scores),
        negative_scores=scores_of(negatives, row.negative_scores),
    )


def scored(texts: tuple[str, ...], scores: tuple[float, ...] | None) -> Scored:
    """Each text with its score. Raises Fault where there are not as many."""
    if scores is not None and len(scores) != len(texts):
        raise Fault(f"found {len(scores)} scores for {len(texts)} documents")
    return list(zip(texts, scores or [None] * len(texts), strict=True))


def distinct(texts: Scored, taken: set[str]) -> Scored:
    """The texts that are not blank, each once, none of those taken."""
    seen = {"", *taken}
    kept = []
    for text, score in texts:
        if text.strip() not in seen:
            seen.add(text.strip())
            kept.append((text, score))
    return kept


def scores_of(texts: Scored, given: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """The scores, where there were some."""
    return None if given is None else tuple(score for _, score in texts if score is not None)
