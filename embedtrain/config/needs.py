"""What a term asks for beside the model: negatives, a teacher's vectors or scores, labels, grades."""

from collections.abc import Iterator
from typing import TypeVar

from embedtrain.config.denominator import (
    AboveFraction,
    AboveMargin,
    BlockSwitches,
    SameLabel,
    TeacherRelevant,
)
from embedtrain.config.faults import Location
from embedtrain.config.terms import AnyTerm, EmbedDistill, InfoNCE, Sigmoid, SoftLabels, Term

VECTORS, SCORES = "vectors", "scores"
"""What `teacher` of a term may name: the vectors of the stage's teacher, or the rows' own scores."""
Contrast = InfoNCE | Sigmoid
AnyKind = TypeVar("AnyKind", bound=AnyTerm)


def for_source(term: AnyKind, blocks: BlockSwitches | None) -> AnyKind:
    """The term in batches of a source: the source's switches win, where the term has them."""
    given = blocks.model_dump(exclude_none=True) if blocks else {}
    return term.model_copy(update={key: on for key, on in given.items() if key in type(term).model_fields})


def covers(term: Term, source: str) -> bool:
    """Whether the term looks at batches of the source."""
    return term.sources is None or source in term.sources


def vector_uses(term: Term) -> Iterator[Location]:
    """Where, within the term, a teacher's vectors are asked for."""
    if isinstance(term, EmbedDistill):
        yield ()
    elif isinstance(term, SoftLabels) and term.teacher == VECTORS:
        yield ("teacher",)
    elif isinstance(term, Contrast):
        for number, mask in enumerate(term.masks):
            if isinstance(mask, AboveMargin | AboveFraction) and mask.judge == "teacher":
                yield ("masks", number, "judge")


def uses_vectors(term: Term) -> bool:
    """Whether the term asks for a teacher's vectors."""
    return any(True for _ in vector_uses(term))


def score_uses(term: Term) -> Iterator[tuple[Location, str]]:
    """Where, within the term, teacher scores of the rows are asked for, and their name."""
    if isinstance(term, SoftLabels) and term.teacher != VECTORS:
        yield ("teacher",), term.teacher
    elif isinstance(term, Contrast):
        for number, mask in enumerate(term.masks):
            if isinstance(mask, TeacherRelevant):
                yield ("masks", number, "teacher"), mask.teacher


def label_uses(term: Term) -> Iterator[Location]:
    """Where, within the term, class labels are asked for."""
    if isinstance(term, Contrast):
        for number, mask in enumerate(term.masks):
            if isinstance(mask, SameLabel):
                yield ("masks", number)


def only_negatives(term: EmbedDistill) -> bool:
    """Whether hard negatives are all that is learned."""
    return not term.queries and not term.positives


def uses_stored(term: Contrast) -> bool:
    """Whether the rows' own hard negatives are told from a positive, this row's or another's."""
    return term.own_negatives or term.in_batch_negatives


def uses_batch(term: Contrast) -> bool:
    """Whether other rows' queries or positives are told from a positive: there are always some."""
    others = isinstance(term, InfoNCE) and (
        term.query_query or term.document_document or term.document_query or term.symmetric
    )
    return term.in_batch_positives or others
