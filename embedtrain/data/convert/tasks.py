"""The tasks by name: which columns a record has, and the conversion of what they hold into rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from embedtrain.data.convert.classes import Labelled, example_rows, label_rows
from embedtrain.data.convert.pairs import (
    Answered,
    Compared,
    Graded,
    Inferred,
    Pair,
    duplicate_rows,
    graded_rows,
    nli_rows,
    parallel_rows,
    retrieval_rows,
    similar_rows,
    title_rows,
)
from embedtrain.data.formats.record import Fault, Record, passage_text
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row

NLI_LABELS = ("entailment", "neutral", "contradiction")
# the hub numbers the labels in this order; -1 says that the judges found no majority
NUMBERED = dict(zip(("0", "1", "2", "-1", "-"), (*NLI_LABELS, "neutral", "neutral"), strict=True))
SAME = {"1": True, "0": False, "true": True, "false": False, "duplicate": True, "not_duplicate": False}
# what a column is called elsewhere; its first name is ours
NAMES = {
    "query": ("query", "anchor", "question"),
    "positives": ("positives", "positive", "pos", "document", "answer", "passage"),
    "negatives": ("negatives", "negative", "neg"),
    "instruction": ("instruction", "prompt"),
    "title": ("title", "headline"),
    "body": ("body", "text", "abstract", "content", "document"),
    "first": ("sentence1", "text1", "premise", "question1", "anchor", "source"),
    "second": ("sentence2", "text2", "hypothesis", "question2", "positive", "target"),
    "grade": ("score", "similarity_score", "similarity", "label"),
    "label": ("label", "gold_label", "labels", "is_duplicate"),
    "text": ("text", "sentence", "sentences", "query"),
    "class": ("label", "label_text", "labels", "category", "topic"),
}


def column(record: Record, role: str) -> str:
    """The column of this record that plays a role: the first of its names that has a value, or our own."""
    return next((name for name in NAMES[role] if record.has(name)), NAMES[role][0])


def line(record: Record, role: str) -> str:
    """The text of a role. Raises Fault where it is blank."""
    key = column(record, role)
    if not (text := record.text(key)).strip():
        raise Fault(f"'{key}': found blank text, expected a text")
    return text


def text_or_blank(record: Record, role: str) -> str:
    """The text of a role; blank where the record has none."""
    key = column(record, role)
    return record.text(key) if record.has(key) else ""


def passages(record: Record, role: str) -> tuple[str, ...]:
    """The texts of a role: one or a list, each perhaps an object with a title; () where there is none."""
    key = column(record, role)
    items = record.items(key, "texts") if record.has(key) else []
    return tuple(passage_text(f"{key}[{n}]", item) for n, item in enumerate(items))


def read_answered(record: Record) -> Answered:
    """A query with its positives and negatives."""
    positives = passages(record, "positives")
    if not any(text.strip() for text in positives):
        raise Fault(f"'{column(record, 'positives')}': found no text, expected at least one")
    key = column(record, "instruction")
    instruction = record.text(key) if record.has(key) else None
    return Answered(line(record, "query"), positives, passages(record, "negatives"), instruction)


def read_pair(record: Record) -> Pair:
    """Two texts."""
    return Pair(line(record, "first"), line(record, "second"))


def read_title(record: Record) -> Pair:
    """A title and its body; either may be blank."""
    return Pair(text_or_blank(record, "title"), text_or_blank(record, "body"))


def read_graded(record: Record) -> Graded:
    """Two texts and their grade."""
    return Graded(*read_pair(record), record.number(column(record, "grade")))


def read_inferred(record: Record) -> Inferred:
    """Premise, hypothesis and label; the hub's numbers are named, -1 (no majority) counts as neutral."""
    key = column(record, "label")
    label = NUMBERED.get(record.name(key), record.name(key))
    if label not in NLI_LABELS:
        raise Fault(f"'{key}': found '{label}', expected {', '.join(NLI_LABELS)}, or 0, 1, 2 for them")
    return Inferred(*read_pair(record), label)


def read_compared(record: Record) -> Compared:
    """Two texts and whether they are the same."""
    key = column(record, "label")
    value = str(record.require(key, "0 or 1")).lower()
    if value not in SAME:
        raise Fault(f"'{key}': found '{value}', expected 0 or 1")
    return Compared(*read_pair(record), SAME[value])


def read_labelled(record: Record) -> Labelled:
    """A text and its class."""
    return Labelled(line(record, "text"), record.name(column(record, "class")))


@dataclass(frozen=True)
class Task:
    """How the records of a task are read, one by one, and turned into rows, all together."""

    columns: tuple[str, ...]
    read: Callable[[Record], Any]
    convert: Callable[[Iterable[Any]], Iterator[Row]]


SENTENCES, CLASS = ("sentence1", "sentence2"), ("text", "label")
TASKS: Mapping[str, Task] = {
    "retrieval": Task(("query", "positives"), read_answered, retrieval_rows),
    "title_body": Task(("title", "body"), read_title, title_rows),
    "nli": Task((*SENTENCES, "label"), read_inferred, nli_rows),
    "pair_classification": Task((*SENTENCES, "label"), read_compared, duplicate_rows),
    "sts": Task((*SENTENCES, "score"), read_graded, graded_rows),
    "sts_pairs": Task((*SENTENCES, "score"), read_graded, similar_rows),
    "parallel": Task(SENTENCES, read_pair, parallel_rows),
    **{
        name: Task(CLASS, read_labelled, partial(convert, task=name.partition("_")[0]))
        for kind in ("classification", "clustering")
        for name, convert in ((kind, example_rows), (f"{kind}_labels", label_rows))
    },
}


def convert_records(task: str, records: Iterable[Record], problems: Problems) -> Iterator[Row]:
    """The rows that records of a task make; what is wrong with a record is a problem, and it is left out."""
    chosen = TASKS[task]
    return chosen.convert(read_records(chosen, records, problems))


def read_records(task: Task, records: Iterable[Record], problems: Problems) -> Iterator[Any]:
    """What each record holds."""
    for record in records:
        try:
            yield task.read(record)
        except Fault as fault:
            problems.add(record.place, str(fault))
