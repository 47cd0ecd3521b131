"""The fields of config.json that TEI 1.9.3 parses, by family: a missing or mistyped one ends its start.

A kind that ends in `?` may be absent or null.
"""

from collections.abc import Callable, Mapping
from typing import Any

HIDDEN_ACTS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swiglu", "tanh")
SIZES = {
    "vocab_size": "whole",
    "hidden_size": "whole",
    "intermediate_size": "whole",
    "num_hidden_layers": "whole",
    "num_attention_heads": "whole",
    "max_position_embeddings": "whole",
}
DECODER = SIZES | {
    "num_key_value_heads": "whole",
    "hidden_act": "activation",
    "rms_norm_eps": "real",
    "rope_theta": "real?",
    "rope_parameters": "rope?",
    "sliding_window": "whole?",
}
MISTRAL = DECODER | {
    "initializer_range": "real",
    "rope_scaling": "scaling?",
    "use_bidirectional_attention": "flag?",
}
BERT = SIZES | {
    "hidden_act": "activation",
    "hidden_dropout_prob": "real",
    "type_vocab_size": "whole",
    "initializer_range": "real",
    "layer_norm_eps": "real",
    "pad_token_id": "whole",
    "classifier_dropout": "real?",
}
FIELDS: dict[str, Mapping[str, str]] = {
    "mistral": MISTRAL,
    "llama": MISTRAL
    | dict.fromkeys(("head_dim", "bos_token_id", "eos_token_id", "pad_token_id", "pretraining_tp"), "whole?")
    | {"attention_bias": "flag?", "attention_dropout": "real?", "tie_word_embeddings": "flag?"},
    "qwen2": DECODER | {"use_sliding_window": "flag"},
    "qwen3": DECODER
    | {
        "attention_bias": "flag",
        "head_dim": "whole?",
        "use_sliding_window": "flag",
        "eos_token_id": "whole",
        "use_bidirectional_attention": "flag?",
        "num_labels": "whole?",
    },
    "gemma3_text": SIZES
    | {
        "attention_bias": "flag",
        "pad_token_id": "whole",
        "head_dim": "whole?",
        "hidden_activation": "activation",
        "num_key_value_heads": "whole",
        "query_pre_attn_scalar": "whole",
        "rms_norm_eps": "real",
        "rope_local_base_freq": "real",
        "rope_theta": "real?",
        "rope_parameters": "rope?",
        "sliding_window": "whole?",
        "_sliding_window_pattern": "whole",
    },
    "modernbert": SIZES
    | dict.fromkeys(
        (
            "pad_token_id",
            "eos_token_id",
            "bos_token_id",
            "cls_token_id",
            "sep_token_id",
            "global_attn_every_n_layers",
            "local_attention",
        ),
        "whole",
    )
    | dict.fromkeys(
        (
            "initializer_range",
            "initializer_cutoff_factor",
            "norm_eps",
            "global_rope_theta",
            "attention_dropout",
            "local_rope_theta",
        ),
        "real",
    )
    | {
        "hidden_activation": "activation",
        "classifier_activation": "activation",
        "norm_bias": "flag",
        "attention_bias": "flag",
    },
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), BERT),
}
OTHER_TYPES = (
    "deberta-v2",
    "distilbert",
    "gte",
    "new",
    "mpnet",
    "nomic_bert",
    "bidirectional_pplx_qwen3",
    "llama_bidirec",
)


def is_whole(value: Any) -> bool:
    """A number without sign and fraction."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_real(value: Any) -> bool:
    """Any number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_rope(value: Any) -> bool:
    """One flat set of rotary parameters; one for each kind of layer is not understood."""
    return (
        isinstance(value, dict)
        and is_real(value.get("rope_theta"))
        and isinstance(value.get("rope_type"), str)
    )


def is_scaling(value: Any) -> bool:
    """A scaled rotary base."""
    named = isinstance(value, dict) and isinstance(value.get("rope_type") or value.get("type"), str)
    return named and is_real(value.get("factor"))


KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "whole": (is_whole, "a whole number"),
    "real": (is_real, "a number"),
    "flag": (lambda value: isinstance(value, bool), "true or false"),
    "activation": (lambda value: value in HIDDEN_ACTS, f"one of {', '.join(HIDDEN_ACTS)}"),
    "rope": (is_rope, "one flat object with rope_theta and rope_type"),
    "scaling": (is_scaling, "an object with rope_type and factor"),
}


def mistakes(config: Mapping[str, Any], fields: Mapping[str, str]) -> list[str]:
    """For each field that TEI would stumble over: its name and what it expects."""
    found = []
    for key, kind in fields.items():
        is_right, expected = KINDS[kind.removesuffix("?")]
        value = config.get(key)
        if value is None and kind.endswith("?"):
            continue
        if not is_right(value):
            shown = "is missing" if key not in config else f"is {value!r}"
            found.append(f"{key} {shown}, expected {expected}")
    return found
