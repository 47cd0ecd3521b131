"""Rows of one source into a ContrastiveBatch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from embedtrain.batch import ContrastiveBatch, TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Source, TextFormat
from embedtrain.data.rows import Row, text_key
from embedtrain.model.tokens import tokenize
from embedtrain.text import Formatted, format_document, format_query


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


def collate(
    rows: Sequence[Row], indices: Sequence[int], row_ids: Sequence[int], step: int, how: Collation
) -> ContrastiveBatch:
    """The batch of `rows`: their places in the global batch and in their source are `indices` and `row_ids`.

    All positives of a row are candidates, and `num_negatives` of its stored negatives, drawn by
    (seed, step, row id): the same on any number of processes.
    """
    queries, documents, owners, positive, keys = [], [], [], [], []
    for row, index, row_id in zip(rows, indices, row_ids, strict=True):
        instruction = how.instruction(row)
        queries.append(format_query(how.fmt, row.query, instruction))
        texts = [*row.positives, *draw_negatives(row, row_id, step, how)]
        documents += [format_document(how.fmt, t, instruction, how.source.symmetric) for t in texts]
        owners += [index] * len(texts)
        positive += [i < len(row.positives) for i in range(len(texts))]
        keys += [text_key(text) for text in texts]
    return ContrastiveBatch(
        queries=_tokens(queries, how.query_limit, how),
        documents=_tokens(documents, how.document_limit, how),
        query_index_B=torch.tensor(indices, dtype=torch.int64),
        query_key_B=torch.tensor([text_key(row.query) for row in rows], dtype=torch.int64),
        owner_C=torch.tensor(owners, dtype=torch.int64),
        is_positive_C=torch.tensor(positive, dtype=torch.bool),
        document_key_C=torch.tensor(keys, dtype=torch.int64),
        source=how.name,
        draw_seed=hash_seed(how.seed, step),
    )


def draw_negatives(row: Row, row_id: int, step: int, how: Collation) -> list[str]:
    """At most `num_negatives` of the row's stored negatives, in stored order."""
    if len(row.negatives) <= how.num_negatives:
        return list(row.negatives)
    generator = np.random.default_rng([how.seed, step, row_id])
    drawn = generator.choice(len(row.negatives), how.num_negatives, replace=False)
    return [row.negatives[i] for i in sorted(drawn)]


def hash_seed(*numbers: int) -> int:
    """63 bits that depend on all the numbers; of (seed, step) they key every draw in the objective."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _tokens(formatted: list[Formatted], limit: int, how: Collation) -> TokenBatch:
    batch = tokenize(how.tokenizer, formatted, limit, how.pool_instruction)
    empty = (~batch.pool_TL.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise UserError(
            f"source '{how.name}': no token of {formatted[empty[0]].text[:80]!r} is left to pool within "
            f"{limit} tokens; mend the text, shorten the instruction or raise the limit"
        )
    return batch
