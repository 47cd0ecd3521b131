"""Rows into a ContrastiveBatch, source by source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from embedtrain.batch import ContrastiveBatch, TeacherVectors, TokenBatch, join_batches
from embedtrain.config.needs import SCORES
from embedtrain.data.examples import row_examples
from embedtrain.data.rows import Row, text_key
from embedtrain.data.tokens.cache import TokenCache, nothing_to_pool
from embedtrain.mixture import Part
from embedtrain.model.tokens import as_batch, tokenize
from embedtrain.text import Formatted, SourceText, format_document, format_query, instruction_of

TeacherLookup = Callable[[Sequence[str], Literal["query", "document"], Sequence[str]], np.ndarray]
"""A teacher's float32 vectors (N, K) of a source's raw texts and their instructions; (0, K) of none."""


@dataclass(frozen=True, slots=True)
class Collation:
    """How the rows of the source `name` become a batch; without a token cache they are tokenised here."""

    name: str
    rows: Sequence[Row]
    text: SourceText
    tokenizer: Tokenizer
    pool_instruction: bool
    num_negatives: int
    seed: int
    teacher: TeacherLookup | None = None
    tokens: TokenCache | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document of a row.

    The row and its numbers in the global batch and in its source; the document's place among the row's
    positives and then its negatives; what a teacher scores it, or NaN.
    """

    row: Row
    index: int
    row_id: int
    place: int
    text: str
    is_positive: bool
    score: float


def collate_parts(parts: Sequence[Part], step: int, collations: Mapping[str, Collation]) -> ContrastiveBatch:
    """The batch of these parts of a global one, in order; its source is `several` where they differ."""
    batches = []
    for part in parts:
        how, row_ids = collations[part.source], part.rows.tolist()
        rows = [how.rows[row_id] for row_id in row_ids]
        batches.append(collate(rows, range(part.first, part.first + len(part)), row_ids, step, how))
    return join_batches(batches)


def collate(
    rows: Sequence[Row], indices: Sequence[int], row_ids: Sequence[int], step: int, how: Collation
) -> ContrastiveBatch:
    """The batch of `rows`: their places in the global batch and in their source are `indices` and `row_ids`.

    All positives of a row are candidates, and `num_negatives` of its stored negatives, drawn by
    (seed, step, row id): the same on any number of processes.
    """
    places = zip(rows, indices, row_ids, strict=True)
    candidates = [c for row, index, row_id in places for c in row_candidates(row, index, row_id, step, how)]
    return ContrastiveBatch(
        queries=_queries(rows, row_ids, step, how),
        documents=_documents(candidates, how),
        query_index_B=_ints(indices),
        query_key_B=_ints([text_key(row.query) for row in rows]),
        label_B=_ints([label_key(row) for row in rows]),
        graded_score_B=_floats([torch.nan if row.score is None else row.score for row in rows]),
        owner_C=_ints([c.index for c in candidates]),
        is_positive_C=torch.tensor([c.is_positive for c in candidates], dtype=torch.bool),
        document_key_C=_ints([text_key(c.text) for c in candidates]),
        label_C=_ints([label_key(c.row) if c.is_positive else 0 for c in candidates]),
        teacher_scores={SCORES: _floats([c.score for c in candidates])},
        teacher_vectors=_teacher_vectors(rows, candidates, how),
        source=how.name,
        draw_seed=hash_seed(how.seed, step),
    )


def row_candidates(row: Row, index: int, row_id: int, step: int, how: Collation) -> list[Candidate]:
    """The row's positives, then its drawn negatives, each with its teacher score."""
    positive_scores = row.positive_scores or [torch.nan] * len(row.positives)
    negative_scores = row.negative_scores or [torch.nan] * len(row.negatives)
    texts, scores = (*row.positives, *row.negatives), (*positive_scores, *negative_scores)
    first = len(row.positives)
    places = [*range(first), *(first + i for i in draw_negatives(row, row_id, step, how))]
    return [Candidate(row, index, row_id, p, texts[p], p < first, scores[p]) for p in places]


def draw_negatives(row: Row, row_id: int, step: int, how: Collation) -> list[int]:
    """Places of at most `num_negatives` of the row's stored negatives, in stored order."""
    if len(row.negatives) <= how.num_negatives:
        return list(range(len(row.negatives)))
    generator = np.random.default_rng([how.seed, step, row_id])
    drawn = generator.choice(len(row.negatives), how.num_negatives, replace=False)
    return sorted(drawn.tolist())


def label_key(row: Row) -> int:
    """The key of the row's class label: queries and positives have it, negatives have none (0)."""
    return 0 if row.label is None else text_key(row.label)


def hash_seed(*numbers: int) -> int:
    """63 bits that depend on all the numbers; of (seed, step) they key every draw in the objective."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _queries(rows: Sequence[Row], row_ids: Sequence[int], step: int, how: Collation) -> TokenBatch:
    if how.tokens is not None and how.text.few_shot is None:
        return as_batch(how.tokens.queries(row_ids))
    strings = [_query(row, row_id, step, how) for row, row_id in zip(rows, row_ids, strict=True)]
    return _tokenize(strings, how.text.max_query_tokens, how)


def _query(row: Row, row_id: int, step: int, how: Collation) -> Formatted:
    """The query's string, behind examples drawn by (seed, step, row id) where the source has some."""
    examples = row_examples(how.rows, row_id, step, how.seed, how.text, how.tokenizer)
    return format_query(how.text, row.query, row.instruction, examples)


def _documents(candidates: Sequence[Candidate], how: Collation) -> TokenBatch:
    if how.tokens is not None:
        return as_batch(how.tokens.documents([c.row_id for c in candidates], [c.place for c in candidates]))
    strings = [format_document(how.text, c.text, text_key(c.text), c.row.instruction) for c in candidates]
    return _tokenize(strings, how.text.max_document_tokens, how)


def _tokenize(strings: Sequence[Formatted], limit: int, how: Collation) -> TokenBatch:
    batch = tokenize(how.tokenizer, strings, limit, how.pool_instruction)
    for place in (batch.first_T >= batch.lengths_T).nonzero().flatten().tolist()[:1]:
        raise nothing_to_pool(how.name, strings[place].text, limit)
    return batch


def _teacher_vectors(
    rows: Sequence[Row], candidates: Sequence[Candidate], how: Collation
) -> TeacherVectors | None:
    """What the source's teacher makes of the texts; those of a symmetric source are all queries."""
    if how.teacher is None:
        return None
    asked_B = [instruction_of(row.instruction, how.text.instruction) for row in rows]
    queries_BK = how.teacher([row.query for row in rows], "query", asked_B)
    side: Literal["query", "document"] = "query" if how.text.symmetric else "document"
    asked_C = [instruction_of(c.row.instruction, how.text.instruction) for c in candidates]
    documents_CK = how.teacher([c.text for c in candidates], side, asked_C)
    return TeacherVectors(torch.as_tensor(queries_BK), torch.as_tensor(documents_CK))


def _ints(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _floats(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
