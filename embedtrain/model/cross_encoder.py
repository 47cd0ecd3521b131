"""A sentence-transformers CrossEncoder, opened the way its users do.

Dimensions: P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from embedtrain.config.errors import UserError
from embedtrain.model.existing import read_optional
from embedtrain.model.safe_files import MODULES, check_weights
from embedtrain.model.scorer import Pair, fitting, require_finite, score_by_length
from embedtrain.model.source import resolve_model
from embedtrain.model.st import check_folder, quiet_sentence_transformers

Scale = Literal["logit", "sigmoid"]
HEADS = ("ForSequenceClassification", "ForCausalLM")  # of the models that score pairs without modules.json


@dataclass(frozen=True)
class CrossEncoderScorer:
    """A loaded CrossEncoder of one output, behind the `Scorer` protocol."""

    model: CrossEncoder
    name: str
    scale: Scale = "logit"

    def score(self, pairs: Sequence[Pair], tokens_per_batch: int) -> np.ndarray:
        """The scores of `CrossEncoder.predict`, in batches of similar numbers of tokens."""
        if not pairs:
            return np.zeros(0, np.float32)
        self.model.eval()
        scores_P = score_by_length(
            self.lengths(pairs),
            fitting(tokens_per_batch, self.model.device),
            lambda numbers: self.score_batch([pairs[number] for number in numbers]),
        )
        return require_finite(scores_P, pairs, self.name)

    def lengths(self, pairs: Sequence[Pair]) -> np.ndarray:
        """About how many tokens each pair has (P); texts that stand in many pairs are split once."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        counted = self.model.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        tokens = dict(zip(texts, map(len, counted), strict=True))
        limit = self.model.max_seq_length or np.inf
        return np.array([min(sum(tokens[text] for text in pair), limit) for pair in pairs], np.int64)

    def score_batch(self, pairs: list[Pair]) -> Tensor:
        """Scores (P) of a few pairs, by the model's own tokenisation and prompt."""
        prompts = self.model.prompts or {}
        features = self.model.preprocess(pairs, prompt=prompts.get(self.model.default_prompt_name))
        on_device = {key: to_device(value, self.model.device) for key, value in features.items()}
        scores_P = self.model(on_device)["scores"].float().reshape(len(pairs))
        return scores_P.sigmoid() if self.scale == "sigmoid" else scores_P


def to_device(value: object, device: torch.device) -> object:
    """A tensor on the device; anything else as it is."""
    return value.to(device) if isinstance(value, Tensor) else value


def open_cross_encoder(
    model: str,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    device: str = "cpu",
    max_tokens: int | None = None,
    scale: Scale = "logit",
) -> CrossEncoderScorer:
    """Open a folder, hub id or `pip:` package of a CrossEncoder with one output.

    Reads safetensors only and runs no code from the folder; weights are float32 on the CPU, elsewhere as
    they are stored. `max_tokens` of query and document together can only shorten the model's limit. Raises
    UserError where the folder is no such model.
    """
    folder = resolve_model(model, revision=revision, sha256=sha256).path
    check_is_reranker(folder, model)
    try:
        with quiet_sentence_transformers():
            loaded = CrossEncoder(
                str(folder),
                device=device,
                local_files_only=True,
                activation_fn=nn.Identity(),
                model_kwargs={
                    "use_safetensors": True,
                    "dtype": "float32" if device == "cpu" else "auto",
                },
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{model}: cannot be read as a CrossEncoder: {str(error).splitlines()[0]}") from None
    if loaded.num_labels != 1:
        raise UserError(
            f"{model}: has {loaded.num_labels} outputs a pair (classes); expected a reranker with one"
        )
    if max_tokens is not None:
        loaded.max_seq_length = min(max_tokens, loaded.max_seq_length or max_tokens)
    return CrossEncoderScorer(loaded, model, scale)


def check_is_reranker(folder: Path, model: str) -> None:
    """Raise UserError for a folder whose head sentence-transformers would have to invent, or with pickles."""
    if (folder / MODULES).is_file():
        check_folder(folder)
        kind = read_optional(folder / "config_sentence_transformers.json").get("model_type")
        if kind != "CrossEncoder":
            raise UserError(
                f"{model}: a sentence-transformers folder of model_type {kind or 'SentenceTransformer'}, "
                "which has vectors and no scores of pairs; use kind: model, or give a CrossEncoder"
            )
        return
    check_weights(folder)
    found = (read_optional(folder / "config.json").get("architectures") or ["no architecture"])[0]
    if not found.endswith(HEADS):
        raise UserError(
            f"{model}: its config.json names {found}; expected a model with a head that scores pairs "
            f"(…{HEADS[0]}): train one with tools/train_reranker.py"
        )
