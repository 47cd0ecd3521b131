"""Judges an encoder that is not exported yet, to choose between encoders; reports measure exports only.

Dimensions: E examples, C candidates, D dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, text_key
from embedtrain.evaluation.results import Result
from embedtrain.model.encoder import Encoder
from embedtrain.model.prompts import Prompt, Sources, named_prompts
from embedtrain.text import Formatted

if TYPE_CHECKING:
    from embedtrain.model.st import Embedder, Side


@dataclass(frozen=True)
class Validated:
    """An encoder behind the `Embedder` protocol, with the prompts and the limit of its export to be."""

    encoder: Encoder
    name: str
    sources: Sources = field(default_factory=dict)
    task: str = ""

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.encoder.dim

    @property
    def written(self) -> dict[str, Prompt]:
        """The prompts of the run by name."""
        return named_prompts(self.encoder.spec.text, self.sources)

    def for_task(self, task: str) -> Validated:
        """With the prompts of the task; itself where it has none."""
        names = {task, f"{task}-query", f"{task}-document"}
        return replace(self, task=task) if names & {*self.written, *self.encoder.spec.prompts} else self

    def encode(self, texts: Sequence[str], *, side: Side, normalize: bool = True) -> np.ndarray:
        """float32 vectors (len(texts), dim)."""
        text = self.encoder.spec.text
        limit = max(text.max_query_tokens, text.max_document_tokens)
        return self.encoder.encode_formatted(self.format(texts, side), limit, normalize=normalize)

    def format(self, texts: Sequence[str], side: Side) -> list[Formatted]:
        """By the task's prompt of the side, else the side's own; without a side as they are."""
        written, stored = self.written, self.encoder.spec.prompts
        for name in filter(None, (f"{self.task}-{side}" if side else "", self.task, side)):
            if name in written:
                return [written[name].format(text) for text in texts]
            if name in stored:
                return [Formatted(stored[name] + text, len(stored[name])) for text in texts]
        return [Formatted(text, 0) for text in texts]


def mean_score(results: Sequence[Result]) -> float:
    """Mean over tasks of the primary metric, in points of 100. Raises UserError where it is no number."""
    for result in results:
        if not np.isfinite(value := result.figure.value):
            raise UserError(f"{result.model}: its {result.primary} on '{result.task}' is {value}")
    return fmean(result.figure.value for result in results)


def example_loss(embedder: Embedder, rows: Sequence[Row], temperature: float) -> float:
    """InfoNCE of a few rows: each query's first positive among the first positives and negatives of all.

    Texts that are positives of the query's row hide, but for the first; equal texts count once. Raises
    UserError where a vector is not finite.
    """
    candidates = list(dict.fromkeys(text for row in rows for text in (row.positives[0], *row.negatives)))
    queries_ED = embedder.encode([row.query for row in rows], side="query").astype(np.float64)
    candidates_CD = embedder.encode(candidates, side="document").astype(np.float64)
    scores_EC = queries_ED @ candidates_CD.T / temperature
    if not np.isfinite(scores_EC).all():
        raise UserError(f"{embedder.name}: its vectors of the examples are not finite")
    keys = [text_key(text) for text in candidates]
    positive_E = [candidates.index(row.positives[0]) for row in rows]
    own_E = scores_EC[np.arange(len(rows)), positive_E]
    for number, row in enumerate(rows):
        scores_EC[number, np.isin(keys, [text_key(text) for text in row.positives])] = -np.inf
    scores_EC[np.arange(len(rows)), positive_E] = own_E
    return float(np.mean(np.logaddexp.reduce(scores_EC, axis=1) - own_E))
