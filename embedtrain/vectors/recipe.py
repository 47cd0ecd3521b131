"""What a stored vector depends on, and what makes it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Literal, Protocol

import numpy as np

from embedtrain.artifacts import hash_json

Side = Literal["query", "document"]


class TextEncoder(Protocol):
    """What encodes here: `embedtrain.model.encoder.Encoder`, or anything alike."""

    @property
    def dim(self) -> int:
        """Dims of a vector."""

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        """One float32 vector a text, in the order given."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a stored vector depends on besides the text and its instruction."""

    weights: str  # hash of the weights
    template: str  # hash of the formatting: templates, pooling, attention
    side: Side
    max_tokens: int | None
    normalize: bool = True
    dtype: Literal["float32", "float16"] = "float32"  # of the stored vectors

    @property
    def name(self) -> str:
        """Folder of the recipe in a store."""
        return hash_json(asdict(self))[:16]


def vector_key(text: str, instruction: str = "") -> int:
    """Signed 64-bit hash of an instruction and a text, to the last space."""
    digest = blake2b(f"{len(instruction)}:{instruction}{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
