"""An encoder into a folder that sentence-transformers loads, written for TEI and vLLM to read as well."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PretrainedConfig

from embedtrain.artifacts import write_json
from embedtrain.average import tensors_in_memory, write_sharded, write_tensors
from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.model.card import write_card
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import is_gemma, kind_of
from embedtrain.model.merged import merged_readers
from embedtrain.model.prompts import (
    Prompt,
    Sources,
    bare,
    check_prompts,
    check_room,
    named_prompts,
    shared_suffix,
    without_suffix,
)
from embedtrain.model.st_files import (
    dense_config,
    module_list,
    pooling_config,
    sentence_bert_config,
    sentence_transformers_config,
    tokenizer_config,
)
from embedtrain.model.tokens import append_token
from embedtrain.show.facts import RunFacts
from embedtrain.text import source_text

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SHARD_BYTES = 5 * 10**9
ROPE_BASES = {
    "gemma3_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
}
"""Older names of the rotary bases of each kind of layer."""
FOREIGN_KEYS = ("quantization_config", "auto_map", "_model_name_or_path", "_name_or_path")


@dataclass(frozen=True)
class Exported:
    """An encoder as a folder will hold it: what stands before texts are prompts, the tokenizer ends them."""

    encoder: Encoder
    prompts: dict[str, Prompt]
    max_tokens: int

    @property
    def prefixes(self) -> dict[str, str]:
        """Prompts by name as sentence-transformers has them; those of an embedder that was the base stay."""
        return self.encoder.spec.prompts | {name: prompt.before for name, prompt in self.prompts.items()}


def export_encoder(
    encoder: Encoder,
    folder: Path,
    *,
    precision: str = "float32",
    facts: RunFacts | None = None,
    sources: Sources | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write the whole folder beside its place, then rename it.

    `sources` become prompts by name. Raises UserError where a template cannot live in a
    sentence-transformers folder.
    """
    if folder.exists():
        raise UserError(f"{folder}: it is there already; an export never overwrites a model")
    check_exportable(encoder)
    whole = exported_view(encoder, sources or {})
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_weights(whole.encoder, partial, precision, max_shard_bytes)
    write_tokenizer(whole, partial)
    write_modules(whole, partial)
    write_card(whole.encoder, partial / "README.md", precision, whole.prefixes, facts or RunFacts(""))
    partial.replace(folder)


def exported_view(encoder: Encoder, sources: Sources) -> Exported:
    """The encoder as the folder will hold it: a suffix of special tokens moves to the tokenizer.

    There it survives truncation. Raises UserError for any other suffix, because prompts are prefixes.
    """
    prompts = named_prompts(encoder.spec.text, sources)
    check_prompts(prompts, encoder.spec.pool_instruction)
    tokens = shared_suffix(prompts, encoder.tokenizer)
    max_tokens = longest_limit(encoder.spec.text, sources)
    check_room(prompts, encoder.tokenizer, max_tokens)
    if not tokens:
        return Exported(encoder, prompts, max_tokens)
    tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
    for token in tokens:
        tokenizer = append_token(tokenizer, token)
    text = encoder.spec.text
    text = text.model_copy(update={"query": bare(text.query), "document": bare(text.document)})
    view = Encoder(encoder.backbone, tokenizer, replace(encoder.spec, text=text), encoder.dense)
    ended = {name: without_suffix(prompt) for name, prompt in prompts.items()}
    return Exported(view.train(encoder.training), ended, max_tokens)


def longest_limit(text: TextFormat, sources: Sources) -> int:
    """The one limit that a folder can hold: the longest of all sides of all sources."""
    ways = [source_text(text), *(source.text for source in sources.values())]
    return max(max(way.max_query_tokens, way.max_document_tokens) for way in ways)


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
    with_old_rope(values)
    if kind_of(encoder.backbone) == "decoder" and not is_gemma(config):
        values |= attention_keys(encoder.spec.attention)
    return values


def with_old_rope(values: dict[str, Any]) -> None:
    """Put plain rotary bases where older servers look for them; scaled ones they must not mistake for plain.

    Where kinds of layers have bases of their own, TEI 1.9.3 reads Gemma 3's only without the new form.
    """
    rope, names = values.get("rope_parameters") or {}, ROPE_BASES.get(values["model_type"], {})
    if rope.get("rope_type") == "default":
        values["rope_theta"] = rope["rope_theta"]
    elif names and all(rope.get(kind, {}).get("rope_type") == "default" for kind in names):
        values |= {name: rope[kind]["rope_theta"] for kind, name in names.items()}
        if values["model_type"] == "gemma3_text":
            del values["rope_parameters"]


def attention_keys(attention: str) -> dict[str, bool]:
    """transformers, vLLM and TEI's Qwen2 read the first, TEI's Llama, Mistral and Qwen3 the second."""
    bidirectional = attention == "bidirectional"
    return {"is_causal": not bidirectional, "use_bidirectional_attention": bidirectional}


def write_tokenizer(whole: Exported, folder: Path) -> None:
    """tokenizer.json with the post-processor that adds special tokens, and no chat template anywhere."""
    whole.encoder.tokenizer.save(str(folder / "tokenizer.json"))
    config, special = tokenizer_config(whole.encoder, whole.max_tokens)
    write_json(folder / "tokenizer_config.json", config | special)
    write_json(folder / "special_tokens_map.json", special)


def write_modules(whole: Exported, folder: Path) -> None:
    """What sentence-transformers puts around the backbone."""
    encoder = whole.encoder
    num_dense = len(dense_layers(encoder.dense))
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling_config(encoder))
    modules = module_list(num_dense, encoder.spec.normalize)
    for module in modules:
        (folder / module["path"]).mkdir(exist_ok=True)
    if encoder.spec.normalize:
        write_json(folder / modules[-1]["path"] / "config.json", {})
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", sentence_bert_config(whole.max_tokens))
    write_json(folder / "config_sentence_transformers.json", sentence_transformers_config(whole.prefixes))
