"""The content of each JSON file that sentence-transformers, TEI and vLLM read beside config.json."""

import json
from typing import Any

from tokenizers import Tokenizer
from torch import nn
from transformers import PretrainedConfig

from embedtrain.model.encoder import Encoder
from embedtrain.model.existing import LEGACY, POOLINGS

SPELLINGS = {ours: theirs for theirs, ours in POOLINGS.items()}
MASK_TOKENS = ("[MASK]", "<mask>")


def module_list(num_dense: int, normalize: bool) -> list[dict[str, Any]]:
    """modules.json, with the old names of the types: new readers take them too, TEI knows no others."""
    kinds = ["Transformer", "Pooling", *["Dense"] * num_dense, *(["Normalize"] if normalize else [])]
    return [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]


def pooling_config(encoder: Encoder) -> dict[str, Any]:
    """1_Pooling/config.json in both spellings: a name for new readers, a boolean a mode for old ones.

    A key that sentence-transformers 5.3 or older does not know is an error there; so is, in old versions of
    vLLM, a first `true` that is no mode, and `include_prompt` stands only where it is false.
    """
    mode = SPELLINGS[encoder.spec.pooling]
    width = encoder.backbone.config.hidden_size
    modes = {key: name == mode for key, name in LEGACY.items()}
    left_out = {} if encoder.spec.pool_instruction else {"include_prompt": False}
    return {**modes, "word_embedding_dimension": width, "pooling_mode": mode, **left_out}


def dense_config(linear: nn.Linear, activation: nn.Module) -> dict[str, Any]:
    """config.json of a Dense module."""
    return {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": f"{type(activation).__module__}.{type(activation).__name__}",
    }


def sentence_bert_config(max_tokens: int) -> dict[str, Any]:
    """TEI does not start without `max_seq_length` where this file is there."""
    return {"max_seq_length": max_tokens, "do_lower_case": False}


def sentence_transformers_config(prompts: dict[str, str]) -> dict[str, Any]:
    """Prompts by name. No version is claimed: sentence-transformers would warn users of an older one."""
    return {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}


def tokenizer_config(encoder: Encoder, max_tokens: int) -> tuple[dict[str, Any], dict[str, str]]:
    """tokenizer_config.json, and the special tokens by role."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    return config, token_roles(encoder.tokenizer, encoder.backbone.config)


def token_roles(tokenizer: Tokenizer, config: PretrainedConfig) -> dict[str, str]:
    """Which special token plays which part; a padding token is always named, or batches could not be made.

    Only added tokens get a role: naming any other would make an added token of it and change tokenisation.
    """
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    ends = tokenizer.encode("").tokens
    wanted = {
        "bos_token": token_at(tokenizer, config.bos_token_id),
        "eos_token": token_at(tokenizer, config.eos_token_id),
        "pad_token": token_at(tokenizer, config.pad_token_id),
        "unk_token": json.loads(tokenizer.to_str())["model"].get("unk_token"),
        "mask_token": next((token for token in MASK_TOKENS if token in added), None),
    }
    known = {role: token for role, token in wanted.items() if token in added}
    for role, token in zip(("cls_token", "sep_token"), (ends[:1], ends[-1:]), strict=True):
        if token and token[0] not in known.values():
            known[role] = token[0]
    spare = [known[role] for role in ("eos_token", "sep_token", "unk_token", "bos_token") if role in known]
    known.setdefault("pad_token", wanted["pad_token"] or next(iter(spare), tokenizer.id_to_token(0)))
    return known


def token_at(tokenizer: Tokenizer, token_id: int | list[int] | None) -> str | None:
    """The token of a config's id, the first where it lists several."""
    first = token_id[0] if isinstance(token_id, list) else token_id
    return None if first is None else tokenizer.id_to_token(first)
