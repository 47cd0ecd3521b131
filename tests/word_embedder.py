"""An embedder without a model: a text is the sum of fixed random vectors of its words."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np


class WordEmbedder:
    """Texts that share words are near each other; `calls` records what was asked for."""

    def __init__(self, dim: int = 24, seed: int = 0, name: str = "words") -> None:
        self.name, self.dim, self.seed = name, dim, seed
        self.calls: list[tuple[str, list[str]]] = []

    def encode(self, texts: Sequence[str], *, side: str, normalize: bool = True) -> np.ndarray:
        """Vectors of the texts, float32."""
        self.calls.append((side, list(texts)))
        vectors = np.stack([self.vector(text) for text in texts])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / norms if normalize else vectors).astype(np.float32)

    def for_task(self, task: str) -> "WordEmbedder":
        """It has no prompts."""
        return self

    def vector(self, text: str) -> np.ndarray:
        """The sum of the words' vectors."""
        words = text.lower().split() or ["<empty>"]
        return sum(np.random.default_rng((self.seed, crc32(w.encode()))).normal(size=self.dim) for w in words)
