"""Proves a Router package: on each side it must give the very tokens and vectors of that side's own model.

Dimensions: T texts, D dims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.model.parity import TEXTS_PER_PROMPT, UNUSUAL, shorten
from embedtrain.model.router import RouteSide, task_names
from embedtrain.model.st import SentenceEmbedder, open_sentence_transformer

BOUND = 1e-5
LONGEST_TOKENS = 8192


@dataclass(frozen=True)
class Seen:
    """Texts of one prompt, as one model writes and encodes them."""

    texts: Sequence[str]
    rows: Sequence[tuple[list[int], int]]
    vectors_TD: np.ndarray


@dataclass(frozen=True)
class Route:
    """What a model is by itself: what the package must give on its side."""

    folder: Path
    side: RouteSide
    dim: int
    limit: int | None
    prompts: Mapping[str, str]
    default_prompt: str | None
    seen: Mapping[str, Seen]


def read_route(
    folder: Path,
    side: RouteSide,
    texts: Sequence[str],
    *,
    name: str = "",
    max_tokens: int | None = None,
    device: str = "cpu",
) -> Route:
    """Encode texts by the model in `folder` alone: under its plain prompt all of them, a few under others.

    To the texts come one beyond the limit (tokens) and some unusual ones.
    """
    model = open_sentence_transformer(folder, device=device, max_tokens=max_tokens, name=name)
    limit = model.model.max_seq_length
    tested = [*texts, beyond(texts, limit), *UNUSUAL]
    tasks = task_names(model.model.prompts, side)
    seen = {"": encode_seen(model, tested, side)}
    seen |= {task: encode_seen(model.for_task(task), texts[:TEXTS_PER_PROMPT], side) for task in tasks}
    return Route(folder, side, model.dim, limit, model.model.prompts, model.model.default_prompt_name, seen)


def beyond(texts: Sequence[str], limit: int | None) -> str:
    """The texts in one, again and again, until a word each makes it longer than the limit (tokens)."""
    joined = " ".join(texts)
    num_words = max(1, len(joined.split()))
    return " ".join([joined] * (1 + min(limit or LONGEST_TOKENS, LONGEST_TOKENS) // num_words))


def encode_seen(model: SentenceEmbedder, texts: Sequence[str], side: RouteSide) -> Seen:
    """Token ids, the number of prompt tokens, and vectors as the model gives them.

    A text without a token of its own may have nothing to pool, and is left out.
    """
    pairs = zip(texts, token_rows(model, texts, side), strict=True)
    kept = [(text, row) for text, row in pairs if len(row[0]) > row[1]]
    own = [text for text, _ in kept]
    return Seen(own, [row for _, row in kept], model.encode(own, side=side, normalize=False))


def token_rows(model: SentenceEmbedder, texts: Sequence[str], side: RouteSide) -> list[tuple[list[int], int]]:
    """For each text its token ids and how many of them are the prompt's."""
    features = model.model.preprocess(list(texts), prompt=model.prompt(side), task=side)
    pairs = zip(features["input_ids"], features["attention_mask"].bool(), strict=True)
    return [(ids[mask].tolist(), int(features.get("prompt_length", 0))) for ids, mask in pairs]


def check_router(folder: Path, routes: Sequence[Route], *, device: str = "cpu") -> dict[str, Any]:
    """The facts for parity.json. Raises UserError with the worst text where the package gives anything else.

    Token ids must be equal; the difference of two vectors may be 1e-5 of their length.
    """
    model = open_sentence_transformer(folder, device=device)
    compared = {}
    for route in routes:
        for task, seen in route.seen.items():
            name = f"{route.side} of {task}" if task else route.side
            compared[name] = compare(folder, model.for_task(task), route.side, seen)
    return {
        "bound": BOUND,
        "max_relative_difference": max(compared.values()),
        "token_ids": "equal",
        "compared": compared,
        "dims": model.dim,
    }


def compare(folder: Path, model: SentenceEmbedder, side: RouteSide, seen: Seen) -> float:
    """The largest difference between both vectors of a text, over the length of its own model's."""
    for text, own, found in zip(seen.texts, seen.rows, token_rows(model, seen.texts, side), strict=True):
        if own != found:
            raise UserError(
                f"parity: {folder}: {side} {shorten(text)}: the model alone sees {len(own[0])} tokens, "
                f"{own[1]} of them its prompt's, the package {len(found[0])} and {found[1]}"
            )
    vectors_TD = model.encode(seen.texts, side=side, normalize=False)
    lengths_T = np.maximum(np.linalg.norm(seen.vectors_TD, axis=1), np.finfo(np.float32).tiny)
    differences_T = np.linalg.norm(vectors_TD - seen.vectors_TD, axis=1) / lengths_T
    worst = int(np.argmax(np.nan_to_num(differences_T, nan=np.inf)))
    if not differences_T[worst] <= BOUND:
        raise UserError(
            f"parity: {folder} does not give the vectors of the {side} model alone: a difference of "
            f"{differences_T[worst]:.3g} of their length is above {BOUND:g}; worst: "
            f"{shorten(seen.texts[worst])}"
        )
    return float(differences_T[worst])
