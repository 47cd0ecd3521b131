"""A causal LM that scores pairs: by the likelihood of the query, or by its answer to a question.

Dimensions: P pairs, L tokens, V tokens of the vocabulary.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from embedtrain.config.errors import UserError
from embedtrain.model.existing import ADAPTER
from embedtrain.model.layout import read_config
from embedtrain.model.load import quiet, require_transformers
from embedtrain.model.safe_files import check_weights
from embedtrain.model.scorer import Pair, fitting, require_finite, score_by_length
from embedtrain.model.source import resolve_model
from embedtrain.model.tokens import load_tokenizer

MAX_LOGITS = 2**29  # in one batch: 2 GiB in float32
NO_LIMIT = 2**20  # tokens, of a model that names none
PLACES = re.compile(r"(\{query\}|\{document\})")


@dataclass(frozen=True, slots=True)
class Written:
    """A pair as the model reads it.

    `ids` (L) are token ids; `query` and `document` say for each token if it belongs to that text, at least in
    part: a merge across the text's edge counts as the text's.
    """

    ids: np.ndarray
    query: np.ndarray
    document: np.ndarray

    def cut(self, limit: int) -> "Written | None":
        """At most `limit` tokens: the document loses its end, then the query; None where that cannot do."""
        keep = np.ones(len(self.ids), bool)
        for part in (self.document, self.query):
            excess = int(keep.sum()) - limit
            if excess > 0:
                keep[np.flatnonzero(part & keep)[-excess:]] = False
        if keep.sum() > limit:
            return None
        return Written(self.ids[keep], self.query[keep], self.document[keep])


@dataclass(frozen=True)
class CausalLM:
    """A decoder with its language-model head, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    name: str
    max_tokens: int

    def write(self, template: str, pairs: Sequence[Pair]) -> list[Written]:
        """The pairs in the template's places, tokenised whole and cut to the limit."""
        filled = [fill(template, *pair) for pair in pairs]
        encoded = self.tokenizer.encode_batch([text for text, _ in filled])
        lines = [
            spell(tokens, spans).cut(self.max_tokens)
            for tokens, (_, spans) in zip(encoded, filled, strict=True)
        ]
        if any(line is None for line in lines):
            raise UserError(
                f"{self.name}: the template alone has more than {self.max_tokens} tokens, the model's limit "
                "or max_tokens; shorten the template or raise max_tokens"
            )
        return [line for line in lines if line is not None]

    def budget(self, tokens_per_batch: int) -> int:
        """Tokens in a batch whose logits fit into memory too."""
        within = MAX_LOGITS // self.model.config.get_text_config().vocab_size
        return max(1, min(fitting(tokens_per_batch, self.model.device), within))

    def last_logits(self, lines: Sequence[Written], keep: int) -> Tensor:
        """Logits (P, keep, V) of the last `keep` places of the lines, padded at their right to the longest.

        A causal model never sees what stands to the right, so neither mask nor padding changes a line.
        """
        longest = max(len(line.ids) for line in lines)
        ids_PL = np.zeros((len(lines), longest), np.int64)
        for number, line in enumerate(lines):
            ids_PL[number, : len(line.ids)] = line.ids
        given = torch.from_numpy(ids_PL).to(self.model.device)
        logits: Tensor = self.model(input_ids=given, use_cache=False, logits_to_keep=keep).logits
        return logits[:, -keep:]


@dataclass(frozen=True)
class QueryLikelihood:
    """Mean log-probability of the query's tokens after the document (Sachan et al. 2022, UPR)."""

    lm: CausalLM
    template: str

    def score(self, pairs: Sequence[Pair], tokens_per_batch: int) -> np.ndarray:
        """Mean natural logarithm a token (P), at most 0."""
        return score_lines(self.lm, self.template, pairs, tokens_per_batch, self.score_batch)

    def score_batch(self, lines: Sequence[Written]) -> Tensor:
        """One score a line (P)."""
        asked = [np.flatnonzero(line.query[1:]) + 1 for line in lines]  # nothing foretells the first token
        longest = max(len(line.ids) for line in lines)
        first = min((int(places[0]) for places in asked if len(places)), default=longest)
        logits_PLV = self.lm.last_logits(lines, longest - first + 1)
        scores = [
            mean_log_probability(logits_LV[places - first], line.ids[places])
            for logits_LV, places, line in zip(logits_PLV, asked, lines, strict=True)
        ]
        return torch.stack(scores)


@dataclass(frozen=True)
class YesNo:
    """Logit of one token less that of another as the next after the prompt (as monoT5 and Qwen3-Reranker)."""

    lm: CausalLM
    template: str
    yes: int
    no: int

    def score(self, pairs: Sequence[Pair], tokens_per_batch: int) -> np.ndarray:
        """Logit of yes less logit of no (P)."""
        return score_lines(self.lm, self.template, pairs, tokens_per_batch, self.score_batch)

    def score_batch(self, lines: Sequence[Written]) -> Tensor:
        """One score a line (P)."""
        lengths_P = torch.tensor([len(line.ids) for line in lines])
        keep = int(lengths_P.max() - lengths_P.min()) + 1
        logits_PLV = self.lm.last_logits(lines, keep)
        last_P = (lengths_P - lengths_P.min()).to(logits_PLV.device)
        logits_PV = logits_PLV[torch.arange(len(lines), device=last_P.device), last_P].float()
        return logits_PV[:, self.yes] - logits_PV[:, self.no]


def fill(template: str, query: str, document: str) -> tuple[str, dict[str, tuple[int, int]]]:
    """The template with both texts, and where in it each begins and ends, in characters."""
    pieces = PLACES.split(template)
    texts = {"{query}": query, "{document}": document}
    filled = [texts.get(piece, piece) for piece in pieces]
    edges = np.cumsum([0, *map(len, filled)]).tolist()
    spans = {piece: span for piece, span in zip(pieces, pairwise(edges), strict=True) if piece in texts}
    return "".join(filled), spans


def spell(encoded: Encoding, spans: dict[str, tuple[int, int]]) -> Written:
    """The tokens of a filled template; special tokens that the tokenizer puts at the end are left out."""
    own = np.flatnonzero(np.array(encoded.special_tokens_mask) == 0)
    end = int(own[-1]) + 1 if len(own) else 0
    offsets = np.array(encoded.offsets, np.int64).reshape(-1, 2)[:end]
    special = np.array(encoded.special_tokens_mask[:end], bool)

    def inside(name: str) -> np.ndarray:
        first, last = spans[name]
        return (offsets[:, 0] < last) & (offsets[:, 1] > first) & ~special

    query = inside("{query}")
    return Written(np.array(encoded.ids[:end], np.int64), query, inside("{document}") & ~query)


def mean_log_probability(logits_LV: Tensor, ids_L: np.ndarray) -> Tensor:
    """Mean log-probability of the ids, each by its logits; NaN where there is none."""
    wanted = torch.from_numpy(ids_L).to(logits_LV.device)
    return -nn.functional.cross_entropy(logits_LV.float(), wanted)


def score_lines(
    lm: CausalLM,
    template: str,
    pairs: Sequence[Pair],
    tokens_per_batch: int,
    score_batch: Callable[[list[Written]], Tensor],
) -> np.ndarray:
    """float32 scores (P) of the pairs in the template, in batches of similar length."""
    lines = lm.write(template, pairs)
    scores_P = score_by_length(
        np.array([len(line.ids) for line in lines], np.int64),
        lm.budget(tokens_per_batch),
        lambda numbers: score_batch([lines[number] for number in numbers]),
    )
    return require_finite(scores_P, pairs, lm.name)


def open_likelihood(lm: CausalLM, template: str) -> QueryLikelihood:
    """The query's likelihood; `template` holds {document}, then {query} at its end."""
    return QueryLikelihood(lm, template)


def open_yes_no(lm: CausalLM, template: str, yes: str, no: str) -> YesNo:
    """The answer's logits. Raises UserError where a word is not one token of the model's."""
    return YesNo(lm, template, token_of(lm, yes, "yes"), token_of(lm, no, "no"))


def token_of(lm: CausalLM, word: str, key: str) -> int:
    """The id of a word of one token."""
    encoded = lm.tokenizer.encode(word, add_special_tokens=False)
    if len(encoded.ids) != 1:
        raise UserError(
            f"{lm.name}: {key}: {word!r} is {len(encoded.ids)} tokens here, {encoded.tokens}; expected "
            "a word of one token, with or without a space before it"
        )
    return int(encoded.ids[0])


def open_causal_lm(
    model: str,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    device: str = "cpu",
    max_tokens: int | None = None,
) -> CausalLM:
    """Open a folder, hub id, `pip:` package or GGUF file of a causal LM.

    Reads safetensors only (a GGUF file is converted once) and runs no code from the folder; weights are
    float32 on the CPU, elsewhere as they are stored. `max_tokens` can only shorten the model's limit. Raises
    UserError where a weight is missing, the language-model head above all, or where the model is not causal.
    """
    require_transformers()
    folder = resolve_model(model, revision=revision, sha256=sha256).path
    if (folder / ADAPTER).is_file():
        raise UserError(f"{model}: an adapter; merge it into its base model, which then scores")
    check_weights(folder)
    config = read_config(str(folder), model)
    loaded = read_causal(folder, model, "float32" if device == "cpu" else "auto").to(device).eval()
    prove_causal(loaded, model)
    longest = config.get_text_config().to_dict().get("max_position_embeddings") or max_tokens
    limits = [limit for limit in (longest, max_tokens) if limit]
    return CausalLM(loaded, load_tokenizer(folder), model, min(limits, default=NO_LIMIT))


def read_causal(folder: Path, model: str, dtype: str) -> PreTrainedModel:
    """The model with its head; every weight must be there."""
    try:
        with quiet():
            loaded, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{model}: cannot be read as a causal LM: {str(error).splitlines()[0]}") from None
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{model}: {len(missing)} weights are missing, first {missing[0]}; expected a causal LM with its "
            "language-model head"
        )
    return loaded


def prove_causal(model: PreTrainedModel, name: str) -> None:
    """Raise UserError where another last token changes what the model says before it."""
    ids_PL = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]], device=model.device)
    with torch.inference_mode():
        one, other = model(input_ids=ids_PL, use_cache=False).logits[:, :-1].float()
    if (one - other).abs().max() > 1e-3 * one.abs().max():
        raise UserError(
            f"{name}: model_type '{model.config.model_type}' is not causal: a later token changes what it "
            "says of earlier ones; expected a causal LM"
        )
