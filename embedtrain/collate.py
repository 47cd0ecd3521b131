"""Rows of one source into a ContrastiveBatch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from embedtrain.batch import ContrastiveBatch, TeacherVectors, TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.config.needs import SCORES
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.rows import Row, text_key
from embedtrain.model.tokens import tokenize
from embedtrain.text import Formatted, format_document, format_query, source_text

TeacherLookup = Callable[[Sequence[str], Literal["query", "document"]], np.ndarray]
"""A teacher's float32 vectors (N, K) of a source's raw texts; (0, K) of none."""


@dataclass(frozen=True, slots=True)
class Collation:
    """How rows of the source `name` become a batch. The source's token limits win over the given ones."""

    name: str
    source: Source
    fmt: TextFormat
    tokenizer: Tokenizer
    pool_instruction: bool
    max_query_tokens: int
    max_document_tokens: int
    num_negatives: int
    seed: int
    teacher: TeacherLookup | None = None

    def instruction(self, row: Row) -> str:
        """The row's own instruction, or the source's."""
        return self.source.instruction if row.instruction is None else row.instruction

    @property
    def query_limit(self) -> int:
        """Tokens of a query."""
        return self.source.max_query_tokens or self.max_query_tokens

    @property
    def document_limit(self) -> int:
        """Tokens of a document; those of a symmetric source are queries."""
        if self.source.symmetric:
            return self.query_limit
        return self.source.max_document_tokens or self.max_document_tokens


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document of a row: the row's place in the global batch, and what a teacher scores it, or NaN."""

    row: Row
    index: int
    text: str
    is_positive: bool
    score: float


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
        queries=_tokens([_query(row, how) for row in rows], how.query_limit, how),
        documents=_tokens([_document(c, how) for c in candidates], how.document_limit, how),
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
    positives = zip(row.positives, positive_scores, strict=True)
    drawn = draw_negatives(row, row_id, step, how)
    return [Candidate(row, index, text, True, score) for text, score in positives] + [
        Candidate(row, index, row.negatives[i], False, negative_scores[i]) for i in drawn
    ]


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


def _query(row: Row, how: Collation) -> Formatted:
    return format_query(source_text(how.fmt, how.source), row.query, how.instruction(row))


def _document(candidate: Candidate, how: Collation) -> Formatted:
    text = source_text(how.fmt, how.source, how.seed)
    return format_document(text, candidate.text, text_key(candidate.text), how.instruction(candidate.row))


def _teacher_vectors(
    rows: Sequence[Row], candidates: Sequence[Candidate], how: Collation
) -> TeacherVectors | None:
    """What the source's teacher makes of the texts; those of a symmetric source are all queries."""
    if how.teacher is None:
        return None
    queries_BK = how.teacher([row.query for row in rows], "query")
    side: Literal["query", "document"] = "query" if how.source.symmetric else "document"
    documents_CK = how.teacher([c.text for c in candidates], side)
    return TeacherVectors(torch.as_tensor(queries_BK), torch.as_tensor(documents_CK))


def _ints(values: Sequence[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _floats(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _tokens(formatted: list[Formatted], limit: int, how: Collation) -> TokenBatch:
    batch = tokenize(how.tokenizer, formatted, limit, how.pool_instruction)
    empty = (~batch.pool_TL.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise UserError(
            f"source '{how.name}': no token of {formatted[empty[0]].text[:80]!r} is left to pool within "
            f"{limit} tokens; mend the text, shorten the instruction or raise the limit"
        )
    return batch
