"""An encoder into a folder that sentence-transformers loads, written for TEI and vLLM to read as well."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PretrainedConfig

from embedtrain.artifacts import write_json
from embedtrain.average import tensors_in_memory, write_sharded, write_tensors
from embedtrain.config.errors import UserError
from embedtrain.model.card import Facts, write_card
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import is_gemma, kind_of
from embedtrain.model.merged import merged_readers
from embedtrain.model.st_files import (
    dense_config,
    module_list,
    pooling_config,
    sentence_bert_config,
    sentence_transformers_config,
    tokenizer_config,
)
from embedtrain.model.tokens import append_token
from embedtrain.text import prefix, suffix, validate_template

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SHARD_BYTES = 5 * 10**9
FOREIGN_KEYS = ("quantization_config", "auto_map", "_model_name_or_path", "_name_or_path")


def export_encoder(
    encoder: Encoder,
    folder: Path,
    *,
    precision: str = "float32",
    facts: Facts | None = None,
    instructions: Mapping[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write the whole folder beside its place, then rename it.

    `instructions` maps a prompt's name, usually a source's, to the instruction of its query prompt. Raises
    UserError where a template cannot live in a sentence-transformers folder.
    """
    if folder.exists():
        raise UserError(f"{folder}: it is there already; an export never overwrites a model")
    check_exportable(encoder)
    whole = exported_view(encoder)
    prompts = all_prompts(whole, instructions or {})
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_weights(whole, partial, precision, max_shard_bytes)
    write_tokenizer(whole, partial)
    write_modules(whole, partial, prompts)
    write_card(whole, partial / "README.md", precision, prompts, facts or {})
    partial.replace(folder)


def max_tokens_of(encoder: Encoder) -> int:
    """The one limit that a folder can hold: the longer of the two sides."""
    return max(encoder.spec.text.max_query_tokens, encoder.spec.text.max_document_tokens)


def all_prompts(encoder: Encoder, instructions: Mapping[str, str]) -> dict[str, str]:
    """Prefixes by name: query and document always, then one for each instruction."""
    text = encoder.spec.text
    asked = {name: i for name, i in instructions.items() if i and "{instruction}" in text.query}
    for instruction in ("", *instructions.values()):
        for template in (text.query, text.document):
            validate_template(
                template, instruction=instruction, pool_instruction=encoder.spec.pool_instruction
            )
    named = {name: prefix(text.query, instruction) for name, instruction in asked.items()}
    return encoder.spec.prompts | named | {"query": prefix(text.query), "document": prefix(text.document)}


def exported_view(encoder: Encoder) -> Encoder:
    """The encoder as the folder will hold it: a suffix of special tokens moves to the tokenizer.

    There it survives truncation. Raises UserError for any other suffix, because prompts are prefixes.
    """
    text = encoder.spec.text
    after = {
        side: suffix(template) for side, template in (("query", text.query), ("document", text.document))
    }
    if not any(after.values()):
        return encoder
    tokens = special_tokens(encoder.tokenizer, after["query"])
    if after["query"] != after["document"] or not tokens:
        raise UserError(
            f"text: a sentence-transformers folder holds prefixes only, and the templates end in "
            f"{after['query']!r} (query) and {after['document']!r} (document); give a fixed prefix, or end "
            "both sides in the same special token (encoder.append_eos does that)"
        )
    tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
    for token in tokens:
        tokenizer = append_token(tokenizer, token)
    cut = {side: getattr(text, side).partition("{text}")[0] + "{text}" for side in after}
    bare = text.model_copy(update=cut)
    view = Encoder(encoder.backbone, tokenizer, replace(encoder.spec, text=bare), encoder.dense)
    return view.train(encoder.training)


def special_tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    """The special tokens that `text` consists of, or none where it holds anything else."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    return tokens if "".join(tokens) == text and special.issuperset(tokens) else []


def check_exportable(encoder: Encoder) -> None:
    """Raise UserError for a backbone whose code does not come with transformers."""
    kind = type(encoder.backbone)
    if not kind.__module__.startswith("transformers."):
        raise UserError(
            f"{encoder.spec.base}: its class {kind.__name__} is code of its own, which an exported folder "
            "does not carry; only models that transformers knows are exported"
        )


def write_weights(encoder: Encoder, folder: Path, precision: str, max_shard_bytes: int) -> None:
    """Backbone and Dense, merged in float32 and cast once, with config.json."""
    dtype = DTYPES[precision]
    tensors = merged_readers(encoder, encoder.spec.base)
    write_sharded(folder, tensors.cast(dtype), max_shard_bytes)
    write_json(folder / "config.json", backbone_config(encoder, precision))
    for number, (linear, activation) in enumerate(dense_layers(encoder.dense)):
        place = folder / f"{2 + number}_Dense"
        place.mkdir()
        write_json(place / "config.json", dense_config(linear, activation))
        state = {f"linear.{name}": p.detach() for name, p in linear.named_parameters()}
        write_tensors(place / "model.safetensors", tensors_in_memory(state, str(place)).cast(dtype))


def dense_layers(dense: nn.Module | None) -> list[tuple[nn.Linear, nn.Module]]:
    """Linear layers and the activations after them."""
    if dense is None:
        return []
    parts = list(dense.children())
    pairs = []
    for linear, activation in zip(parts[::2], parts[1::2], strict=True):
        if not isinstance(linear, nn.Linear) or isinstance(activation, nn.Linear):
            raise UserError(f"a Dense part must be linear layers, each with an activation; found {parts}")
        pairs.append((linear, activation))
    return pairs


def backbone_config(encoder: Encoder, precision: str) -> dict[str, Any]:
    """config.json: the model's own, with the switches that each reader takes its attention from."""
    config: PretrainedConfig = encoder.backbone.config
    values = json.loads(config.to_json_string(use_diff=False))
    for key in FOREIGN_KEYS:
        values.pop(key, None)
    values |= {"architectures": [type(encoder.backbone).__name__], "dtype": precision}
    values |= old_rope(values)
    if kind_of(encoder.backbone) == "decoder" and not is_gemma(config):
        values |= attention_keys(encoder.spec.attention)
    return values


def old_rope(values: dict[str, Any]) -> dict[str, float]:
    """The plain rotary base where older servers look for it; a scaled one they must not mistake for plain."""
    rope = values.get("rope_parameters") or {}
    return {"rope_theta": rope["rope_theta"]} if rope.get("rope_type") == "default" else {}


def attention_keys(attention: str) -> dict[str, bool]:
    """transformers, vLLM and TEI's Qwen2 read the first, TEI's Llama, Mistral and Qwen3 the second."""
    bidirectional = attention == "bidirectional"
    return {"is_causal": not bidirectional, "use_bidirectional_attention": bidirectional}


def write_tokenizer(encoder: Encoder, folder: Path) -> None:
    """tokenizer.json with the post-processor that adds special tokens, and no chat template anywhere."""
    encoder.tokenizer.save(str(folder / "tokenizer.json"))
    config, special = tokenizer_config(encoder, max_tokens_of(encoder))
    write_json(folder / "tokenizer_config.json", config | special)
    write_json(folder / "special_tokens_map.json", special)


def write_modules(encoder: Encoder, folder: Path, prompts: dict[str, str]) -> None:
    """What sentence-transformers puts around the backbone."""
    num_dense = len(dense_layers(encoder.dense))
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling_config(encoder))
    modules = module_list(num_dense, encoder.spec.normalize)
    for module in modules:
        (folder / module["path"]).mkdir(exist_ok=True)
    if encoder.spec.normalize:
        write_json(folder / modules[-1]["path"] / "config.json", {})
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", sentence_bert_config(max_tokens_of(encoder)))
    write_json(folder / "config_sentence_transformers.json", sentence_transformers_config(prompts))
