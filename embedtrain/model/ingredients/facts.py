"""What is known of a model besides its tensors, as texts that can be compared and shown."""

from typing import Any

from tokenizers import Tokenizer
from torch import nn
from transformers import PretrainedConfig

from embedtrain.artifacts import hash_bytes
from embedtrain.average import Tensors
from embedtrain.model.encoder import EncoderSpec
from embedtrain.model.existing import DOCUMENT_PROMPTS

HASH_DIGITS = 12
SIDES = {"query", *DOCUMENT_PROMPTS}
UNSEEN = (
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "layer_norm_eps",
    "norm_eps",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "query_pre_attn_scalar",
    "position_embedding_type",
)
"""Settings of an architecture that change vectors and show in no tensor's shape."""


def collect_facts(
    spec: EncoderSpec,
    config: PretrainedConfig,
    tokenizer: Tokenizer,
    tensors: Tensors,
    dense: nn.Module | None,
    base_hash: str | None,
) -> dict[str, str]:
    """Everything that shapes vectors but no tensor says."""
    values: dict[str, Any] = config.to_dict()
    facts = {
        "architecture": config.model_type,
        "layers": str(config.num_hidden_layers),
        **{key: str(values[key]) for key in UNSEEN if values.get(key) is not None},
        "attention": spec.attention,
        "pooling": spec.pooling,
        "pool_instruction": "yes" if spec.pool_instruction else "no",
        "normalize": "yes" if spec.normalize else "no",
        "query template": repr(spec.text.query),
        "document template": repr(spec.text.document),
        "other prompts": other_prompts(spec),
        "limits": f"{spec.text.max_query_tokens} a query, {spec.text.max_document_tokens} a document",
        "tokenizer": hash_bytes(tokenizer.to_str().encode())[:HASH_DIGITS],
        "dense": activations(dense),
        "dtype": " and ".join(sorted({str(i.dtype).removeprefix("torch.") for i in tensors.info.values()})),
        "keep_first_layers": str(spec.keep_first_layers or "all"),
        "base name": spec.base,
    }
    return facts if base_hash is None else facts | {"base": f"weights {base_hash[:HASH_DIGITS]}"}


def other_prompts(spec: EncoderSpec) -> str:
    """Named prompts besides those of the two sides."""
    named = {name: text for name, text in sorted(spec.prompts.items()) if text and name not in SIDES}
    return ", ".join(f"{name} {text!r}" for name, text in named.items()) or "none"


def activations(dense: nn.Module | None) -> str:
    """What follows each linear layer of the Dense modules."""
    parts = [] if dense is None else list(dense.children())[1::2]
    return ", ".join(type(part).__name__ for part in parts) or "none"
