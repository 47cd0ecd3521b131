"""A sentence-transformers model as an encoder for the vector store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embedtrain.config.tuning import INSTRUCTION
from embedtrain.model.st import Embedder, SentenceEmbedder

OWN_PROMPTS = "its own prompts"  # stands for the template in a recipe


@dataclass(frozen=True, slots=True)
class Prompted:
    """A sentence-transformers model with its own prompts; what the rows say of instructions is not read."""

    embedder: Embedder

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.embedder.dim

    def encode(
        self,
        texts: Sequence[str],
        side: Literal["query", "document"],
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        """One float32 vector a text. The model was opened with its limit and makes batches of its own."""
        return self.embedder.encode(texts, side=side, normalize=normalize)


@dataclass(frozen=True, slots=True)
class Instructed:
    """A sentence-transformers model that is asked in other words than its own; documents are as they were."""

    embedder: SentenceEmbedder
    query_prompt: str

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.embedder.dim

    def encode(
        self,
        texts: Sequence[str],
        side: Literal["query", "document"],
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        """One float32 vector a text; before a query stands the prompt with the instruction."""
        prompt = self.query_prompt.replace(INSTRUCTION, instruction) if side == "query" else None
        return self.embedder.encode(texts, side=side, normalize=normalize, prompt=prompt)
