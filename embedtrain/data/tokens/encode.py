"""Formatted strings into token ids: whole strings, with nothing hidden in the tokenizer.

Dimensions: T texts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from tokenizers import Encoding, Tokenizer

from embedtrain.config.errors import UserError
from embedtrain.text import Formatted


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Token ids of T texts, end to end in `ids`; `lengths_T` of each, and in `first_T` its first pooled one.

    A text without a token to pool has a first one beyond its last.
    """

    ids: np.ndarray
    lengths_T: np.ndarray
    first_T: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths_T)

    def take(self, texts: np.ndarray) -> "Tokens":
        """The texts of these numbers, in this order."""
        lengths_T = self.lengths_T[texts]
        shift_T = (np.cumsum(self.lengths_T) - self.lengths_T)[texts] - (np.cumsum(lengths_T) - lengths_T)
        places = np.arange(lengths_T.sum()) + np.repeat(shift_T, lengths_T)
        return Tokens(self.ids[places], lengths_T, self.first_T[texts])

    @property
    def unpooled(self) -> np.ndarray:
        """The texts of which nothing is left to pool."""
        return np.flatnonzero(self.first_T >= self.lengths_T)


def encode(
    tokenizer: Tokenizer, formatted: Sequence[Formatted], max_tokens: Sequence[int], pool_instruction: bool
) -> tuple[Tokens, np.ndarray]:
    """The tokens of each text within its limit, and whether it was cut to it, bool (T,).

    Special tokens of the post-processor count in the limit and are kept. Raises UserError where a limit
    leaves no room for a text.
    """
    num_special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if min(max_tokens, default=num_special + 1) <= num_special:
        raise UserError(
            f"max_tokens is {min(max_tokens)}, too few for the tokenizer's special tokens and a text"
        )
    encodings = tokenizer.encode_batch([f.text for f in formatted], add_special_tokens=False)
    cut_T = np.array([len(e) for e in encodings], np.int64) > np.array(max_tokens, np.int64) - num_special
    for place in np.flatnonzero(cut_T).tolist():
        encodings[place].truncate(max_tokens[place] - num_special)
    finished = [tokenizer.post_process(encoding) for encoding in encodings]
    firsts = (
        0 if pool_instruction else first_pooled(encoding, f.instruction_chars)
        for encoding, f in zip(finished, formatted, strict=True)
    )
    return flatten([e.ids for e in finished], firsts), cut_T


def flatten(ids: Sequence[Sequence[int]], firsts: Iterable[int]) -> Tokens:
    """Token ids of each text and its first pooled one as arrays (int32)."""
    lengths_T = np.array([len(text) for text in ids], np.int64)
    flat = np.fromiter(chain.from_iterable(ids), np.int32, count=int(lengths_T.sum()))
    return Tokens(flat, lengths_T, np.fromiter(firsts, np.int64, count=len(ids)))


def first_pooled(encoding: Encoding, instruction_chars: int) -> int:
    """Position of the first token that holds a character of the text itself; a leading BOS is instruction.

    Where the text is empty, an end token is all that counts: so does sentence-transformers.
    """
    if instruction_chars == 0:
        return 0
    for position, ((_, end), special) in enumerate(
        zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    ):
        if not special and end > instruction_chars:
            return position
    return max((i + 1 for i, special in enumerate(encoding.special_tokens_mask) if not special), default=0)
