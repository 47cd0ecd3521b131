"""Formatted texts into a `TokenBatch`: whole strings, no padding or truncation hidden in the tokenizer."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers

from embedtrain.batch import TokenBatch, cut_by_length
from embedtrain.config.errors import UserError
from embedtrain.data.tokens.encode import Tokens, encode
from embedtrain.text import Formatted

POOL_CHARS = 1 << 22  # tokenised at a time


def tokenize(
    tokenizer: Tokenizer, formatted: Sequence[Formatted], max_tokens: int, pool_instruction: bool
) -> TokenBatch:
    """Tokens; a long text is cut, the special tokens of the post-processor are kept."""
    return as_batch(encode(tokenizer, formatted, [max_tokens] * len(formatted), pool_instruction)[0])


def batches(
    tokenizer: Tokenizer,
    formatted: Sequence[Formatted],
    max_tokens: int,
    pool_instruction: bool,
    tokens_per_batch: int,
    *,
    padded: bool,
) -> Iterator[tuple[np.ndarray, TokenBatch]]:
    """Places of the texts and their tokens, longest first, within `tokens_per_batch`, padding included.

    Each text is tokenised once. Texts are sorted by characters, and those of a pool by tokens: so memory
    does not grow with their number.
    """
    chars_T = np.array([len(one.text) for one in formatted], np.int64)
    order = np.argsort(-chars_T, kind="stable")
    pools = np.cumsum(chars_T[order]) // POOL_CHARS
    for pool in np.split(order, np.flatnonzero(np.diff(pools)) + 1):
        chosen = [formatted[place] for place in pool]
        tokens = encode(tokenizer, chosen, [max_tokens] * len(chosen), pool_instruction)[0]
        by_length = np.argsort(-tokens.lengths_T, kind="stable")
        for part in cut_by_length(tokens.lengths_T[by_length].tolist(), tokens_per_batch, padded=padded):
            yield pool[by_length[part]], as_batch(tokens.take(by_length[part]))


def as_batch(tokens: Tokens) -> TokenBatch:
    """The same as tensors."""
    arrays = (tokens.ids.astype(np.int64), tokens.lengths_T, tokens.first_T)
    return TokenBatch(*map(torch.from_numpy, arrays))


def load_tokenizer(folder: Path, *, eos: str | None = None, lowercase: bool = False) -> Tokenizer:
    """tokenizer.json without padding and truncation; `eos` is added after every text."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{folder}: no tokenizer.json; only fast tokenizers are read")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if lowercase:
        steps = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer if eos is None else append_token(tokenizer, eos)


def append_token(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """The tokenizer with a post-processor that ends every text with `token`; what it added before stays.

    The template in the post-processor is extended: of two templates in a sequence the second would be applied
    to each piece of the first.
    """
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise UserError(f"append_eos: the tokenizer does not know its end token {token!r}")
    if tokenizer.encode("a").ids[-1] == token_id:
        return tokenizer
    state = json.loads(tokenizer.to_str())
    steps = post_processors(state["post_processor"])
    template = next((step for step in steps if step["type"] == "TemplateProcessing"), None)
    if template is None:
        sides: list[dict[str, Any]] = [{"Sequence": {"id": side, "type_id": 0}} for side in "AB"]
        template = {"type": "TemplateProcessing", "single": sides[:1], "pair": sides, "special_tokens": {}}
        steps.append(template)
    for order in ("single", "pair"):
        template[order].append({"SpecialToken": {"id": token, "type_id": 0}})
    template["special_tokens"][token] = {"id": token, "ids": [token_id], "tokens": [token]}
    state["post_processor"] = {"type": "Sequence", "processors": steps}
    return Tokenizer.from_str(json.dumps(state))


def post_processors(state: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a post-processor; those that can be followed by a template."""
    steps = [] if state is None else state["processors"] if state["type"] == "Sequence" else [state]
    odd = [step["type"] for step in steps if step["type"] not in ("ByteLevel", "TemplateProcessing")]
    if odd:
        raise UserError(
            f"append_eos: the tokenizer's post-processor is {odd[0]}, which has an end token of its own"
        )
    return list(steps)


def end_token(folder: Path) -> str | None:
    """The end token that tokenizer_config.json names."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    value = json.loads(path.read_text()).get("eos_token")
    return value["content"] if isinstance(value, dict) else value
