"""Rows of pairs of texts: questions and answers, titles, NLI, duplicates, graded pairs, translations."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from embedtrain.data.rows import Row

Judgment = TypeVar("Judgment")
LEAST_SIMILAR = 4.0  # a pair of this grade or above is taken as a positive


class Answered(NamedTuple):
    """A query, what answers it, and what does not."""

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    instruction: str | None = None


class Pair(NamedTuple):
    """Two texts that belong together."""

    first: str
    second: str


class Graded(NamedTuple):
    """Two texts and how alike they are."""

    first: str
    second: str
    grade: float


class Inferred(NamedTuple):
    """A premise, a hypothesis, and "entailment", "neutral" or "contradiction"."""

    premise: str
    hypothesis: str
    label: str


class Compared(NamedTuple):
    """Two texts, and whether they say the same."""

    first: str
    second: str
    same: bool


def retrieval_rows(examples: Iterable[Answered]) -> Iterator[Row]:
    """A row for each query. Texts that come twice, and negatives that are positives, are left out."""
    for query, positives, negatives, instruction in examples:
        kept = distinct(positives)
        yield Row(query, kept, distinct(negatives, but=kept), instruction=instruction, task="retrieval")


def title_rows(examples: Iterable[Pair]) -> Iterator[Row]:
    """A title asks for its body. Where one is blank or both are the same there is no row."""
    for title, body in examples:
        if title.strip() and body.strip() and title.strip() != body.strip():
            yield Row(title, (body,), task="title_body")


def nli_rows(examples: Iterable[Inferred]) -> Iterator[Row]:
    """A row for each premise that entails something: positives are entailed, negatives contradict.

    A hypothesis that is judged both ways is left out. All examples are held in memory.
    """
    for premise, judged in grouped(examples).items():
        entailed, against = (
            [text for text, labels in judged.items() if wanted in labels and other not in labels]
            for wanted, other in (("entailment", "contradiction"), ("contradiction", "entailment"))
        )
        if positives := distinct(entailed, but=(premise,)):
            yield Row(premise, positives, distinct(against, but=(premise, *positives)), task="nli")


def duplicate_rows(examples: Iterable[Compared]) -> Iterator[Row]:
    """A row for each text that has a duplicate: positives say the same, negatives were judged not to.

    A pair counts from both sides; one that is judged both ways is left out. All examples are held in memory.
    """
    both = (Compared(a, b, same) for x, y, same in examples for a, b in ((x, y), (y, x)))
    for text, judged in grouped(both).items():
        same, other = ([t for t, verdicts in judged.items() if verdicts == {v}] for v in (True, False))
        if positives := distinct(same, but=(text,)):
            yield Row(text, positives, distinct(other, but=(text, *positives)), task="pair_classification")


def graded_rows(examples: Iterable[Graded]) -> Iterator[Row]:
    """Every pair with its grade as `score`, for terms that learn from the order of grades (CoSENT).

    The positive of a low grade is none: a contrastive term must not see these rows.
    """
    for first, second, grade in examples:
        yield Row(first, (second,), score=grade, task="sts")


def similar_rows(examples: Iterable[Graded], least: float = LEAST_SIMILAR) -> Iterator[Row]:
    """Pairs of at least this grade, each text asking for the other (NV-Embed's way with STS)."""
    for first, second, grade in examples:
        if grade >= least and first.strip() != second.strip():
            yield Row(first, (second,), score=grade, task="sts")
            yield Row(second, (first,), score=grade, task="sts")


def parallel_rows(examples: Iterable[Pair]) -> Iterator[Row]:
    """Each sentence asks for its translation. Where both are the same there is no row."""
    for first, second in examples:
        if first.strip() != second.strip():
            yield Row(first, (second,), task="parallel")
            yield Row(second, (first,), task="parallel")


def distinct(texts: Iterable[str], but: Iterable[str] = ()) -> tuple[str, ...]:
    """The texts that are not blank, each once, none of those in `but`; white space around them is ignored."""
    unwanted = {"", *(text.strip() for text in but)}
    kept: dict[str, str] = {}
    for text in texts:
        if text.strip() not in unwanted:
            kept.setdefault(text.strip(), text)
    return tuple(kept.values())


def grouped(examples: Iterable[tuple[str, str, Judgment]]) -> dict[str, dict[str, set[Judgment]]]:
    """First text → second text → the judgments of the two, in order of coming."""
    found: dict[str, dict[str, set[Judgment]]] = {}
    for first, second, judgment in examples:
        found.setdefault(first, {}).setdefault(second, set()).add(judgment)
    return found
