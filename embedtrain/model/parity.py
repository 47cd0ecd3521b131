"""Proves an exported folder: sentence-transformers must give our token ids and our vectors.

Dimensions: T texts, L tokens, D dims.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.encoder import Encoder, Side
from embedtrain.model.export import Exported, exported_view
from embedtrain.model.prompts import Prompt, Sources, named_prompts
from embedtrain.model.st import SentenceEmbedder, open_sentence_transformer

PARITY_BOUNDS = {"float32": 1e-6, "bfloat16": 1e-3, "float16": 1e-3}
SIDES: dict[str, Side] = {"query": "query", "document": "document"}
SHOWN_CHARS = 80
TEXTS_PER_PROMPT = 8
ENDLESS = 1 << 20
UNUSUAL = (
    "",
    " ",
    "\n\t ",
    " leading and trailing spaces  ",
    "e\u0301 and \u00e9, ﬁ and fi, Å and Å",
    "👩‍👩‍👧‍👦 🇫🇷 ☕️",
    "שלום עולם، مرحبا بالعالم",
    "日本語のテキストです。中文文本。한국어",
    "zero\u200bwidth, soft\u00adhyphen, nul\x00byte",
    "MiXeD CaSe WORDS",
    "</s> [SEP] <|im_end|> <eos>",
)


@dataclass(frozen=True)
class Compared:
    """What was found on one side, or with one named prompt."""

    texts: list[str]
    distances: np.ndarray
    num_at_limit: int
    num_unpooled: int

    @property
    def worst(self) -> float:
        """The largest cosine distance; NaN where any is."""
        return float(np.max(self.distances, initial=0.0))

    def facts(self) -> dict[str, Any]:
        """For parity.json."""
        return {
            "num_texts": len(self.texts),
            "num_at_limit": self.num_at_limit,
            "num_without_pooled_tokens": self.num_unpooled,
            "max_cosine_distance": self.worst,
        }


def check_parity(
    encoder: Encoder,
    folder: Path,
    texts_query: Sequence[str],
    texts_document: Sequence[str],
    bound: float | None = None,
    sources: Sources | None = None,
) -> dict[str, Any]:
    """Encode texts by sentence-transformers from `folder` and by `encoder`; the facts for parity.json.

    To each side come a text beyond the limit and some unusual ones; each other prompt is proved on a few.
    `bound` follows from the less exact of both precisions where it is not given. Raises UserError, with the
    worst text, where token ids differ at all or vectors by more than the bound.
    """
    precision = read_json(folder / "config.json")["dtype"]
    if bound is None:
        bound = max(PARITY_BOUNDS[precision], PARITY_BOUNDS[encoder.spec.precision])
    theirs = open_sentence_transformer(folder, device=str(encoder.device))
    whole = exported_view(encoder, sources or {})
    trained = named_prompts(encoder.spec.text, sources or {})
    sides: dict[Side, Sequence[str]] = {"query": texts_query, "document": texts_document}
    compared: dict[str, Compared] = {}
    for name, prompt in distinct(whole.prompts, theirs.model.prompts, folder).items():
        texts = list(sides[prompt.side])[: None if name in SIDES else TEXTS_PER_PROMPT]
        if name in SIDES:
            texts += [longer_than_limit(whole, texts), *UNUSUAL]
        check_untouched(encoder, whole, trained[name], prompt, texts)
        compared[name if name in SIDES else f"prompt '{name}'"] = compare(whole, theirs, texts, name)
    refuse_above(bound, compared, folder)
    return {
        "bound": bound,
        "max_cosine_distance": max(c.worst for c in compared.values()),
        "token_ids": "equal",
        "precision": {"folder": precision, "encoder": encoder.spec.precision},
        "max_tokens": whole.max_tokens,
        "compared": {name: c.facts() for name, c in compared.items()},
        "versions": {name: version(name) for name in ("sentence-transformers", "transformers", "torch")},
        "python": platform.python_version(),
    }


def distinct(
    prompts: Mapping[str, Prompt], found: Mapping[str, str | None], folder: Path
) -> dict[str, Prompt]:
    """Both sides and one of each group of prompts alike; of the rest only the folder's string is checked."""
    chosen: dict[str, Prompt] = {}
    for name, prompt in prompts.items():
        if name in SIDES or not any(prompt.like(one) and prompt.side == one.side for one in chosen.values()):
            chosen[name] = prompt
        elif found.get(name) != prompt.before:
            raise UserError(
                f"parity: {folder} has the prompt {found.get(name)!r} for '{name}', "
                f"training {prompt.before!r}"
            )
    return chosen


def longer_than_limit(whole: Exported, texts: Sequence[str]) -> str:
    """The given texts in one, again and again, until it must be cut."""
    joined = " ".join(text for text in texts if text.strip()) or "text"
    num_tokens = len(whole.encoder.tokenizer.encode(joined, add_special_tokens=False))
    return " ".join([joined] * (1 + 2 * whole.max_tokens // max(1, num_tokens)))


def check_untouched(
    encoder: Encoder, whole: Exported, trained: Prompt, prompt: Prompt, texts: Sequence[str]
) -> None:
    """Where export moved a suffix into the tokenizer, uncut texts must keep their token ids."""
    if whole.encoder is encoder:
        return
    rows = token_rows(encoder, trained, texts, ENDLESS), token_rows(whole.encoder, prompt, texts, ENDLESS)
    for text, before, after in zip(texts, *rows, strict=True):
        if before != after:
            raise UserError(f"text.{prompt.side}: its suffix is tokenised differently after {shorten(text)}")


def token_rows(encoder: Encoder, prompt: Prompt, texts: Sequence[str], limit: int) -> list[Any]:
    """For each text: its token ids, and the position of the first pooled one."""
    batch = encoder.tokenize([prompt.format(text) for text in texts], limit)
    ids = [text.tolist() for text in batch.ids_P.split(batch.lengths_T.tolist())]
    return list(zip(ids, batch.first_T.tolist(), strict=True))


def their_rows(theirs: SentenceEmbedder, texts: Sequence[str], prompt: str) -> list[Any]:
    """The same by sentence-transformers, which counts the prompt's tokens once for all texts."""
    features = theirs.model.preprocess(list(texts), prompt=prompt)
    included = theirs.model[1].include_prompt
    start = 0 if included else int(features.get("prompt_length", 0))
    pairs = zip(features["input_ids"], features["attention_mask"].bool(), strict=True)
    ids = [row[mask].tolist() for row, mask in pairs]
    return [(row, min(start, len(row))) for row in ids]


def compare(ours: Exported, theirs: SentenceEmbedder, texts: Sequence[str], name: str) -> Compared:
    """Token ids under the prompt of this name, which must be equal, then vectors."""
    prompt, limit = ours.prompts[name], ours.max_tokens
    rows = token_rows(ours.encoder, prompt, texts, limit)
    found_rows = their_rows(theirs, texts, theirs.model.prompts[name])
    for text, expected, found in zip(texts, rows, found_rows, strict=True):
        if expected != found:
            raise UserError(describe_tokens(text, name, expected, found))
    kept = [text for text, (ids, start) in zip(texts, rows, strict=True) if len(ids) > start]
    vectors_TD = ours.encoder.encode_formatted([prompt.format(text) for text in kept], limit)
    return Compared(
        texts=kept,
        distances=cosine_distances(vectors_TD, encode_named(theirs, kept, name)),
        num_at_limit=sum(len(ids) == limit for ids, _ in rows),
        num_unpooled=len(texts) - len(kept),
    )


def encode_named(theirs: SentenceEmbedder, texts: list[str], prompt_name: str) -> np.ndarray:
    """By `encode_query` and `encode_document`, as users call them, or by a named prompt."""
    if prompt_name in SIDES:
        return theirs.encode(texts, side=SIDES[prompt_name])
    vectors = theirs.model.encode(
        texts, prompt_name=prompt_name, convert_to_tensor=True, show_progress_bar=False
    )
    return vectors.float().cpu().numpy()


def cosine_distances(one_TD: np.ndarray, other_TD: np.ndarray) -> np.ndarray:
    """1 - cosine of each pair, in float64: 0 between two zero vectors, NaN where only one is zero."""
    one, other = one_TD.astype(np.float64), other_TD.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    both_zero = ~one.any(axis=1) & ~other.any(axis=1)
    with np.errstate(invalid="ignore"):
        distances = 1 - (one * other).sum(axis=1) / lengths
    return np.where(both_zero, 0.0, distances)


def describe_tokens(text: str, name: str, expected: Any, found: Any) -> str:
    """The first difference between two rows of tokens."""
    (ours, our_start), (theirs, their_start) = expected, found
    if ours == theirs:
        return (
            f"parity: {name} {shorten(text)}: training pools from token {our_start}, sentence-transformers "
            f"from token {their_start}: the prompt's last token reaches into the text"
        )
    place = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    return (
        f"parity: {name} {shorten(text)}: token ids differ from position {place}: training sees "
        f"{len(ours)} tokens, {ours[place : place + 5]}…, sentence-transformers {len(theirs)} tokens, "
        f"{theirs[place : place + 5]}…"
    )


def refuse_above(bound: float, compared: Mapping[str, Compared], folder: Path) -> None:
    """Raise UserError naming the worst text where a distance is above the bound, or not a number."""
    name, worst = max(compared.items(), key=lambda item: np.nan_to_num(item[1].worst, nan=np.inf))
    if worst.worst <= bound:
        return
    distances = np.nan_to_num(worst.distances, nan=np.inf)
    place = int(distances.argmax())
    raise UserError(
        f"parity: {folder} does not give the vectors that were trained: cosine distance "
        f"{distances[place]:.3g} is above {bound:g} ({name}, {int((distances > bound).sum())} of "
        f"{len(distances)} texts); worst: {shorten(worst.texts[place])}"
    )


def shorten(text: str) -> str:
    """A text as an error shows it."""
    return repr(text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…")
