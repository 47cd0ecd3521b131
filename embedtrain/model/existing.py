"""What a folder says of itself when it is an embedder already: pooling, prompts, length and Dense."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import EncoderConfig, TextFormat
from embedtrain.model.safe_files import MODULES, read_modules

POOLINGS = {"mean": "mean", "cls": "cls", "lasttoken": "last_token", "weightedmean": "weighted_mean"}
LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Existing:
    """An embedder found on disk; None stands for what its folder does not say."""

    backbone: Path
    attention: str | None = None
    pooling: str | None = None
    pool_instruction: bool | None = None
    max_tokens: int | None = None
    lowercase: bool = False
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    dense: tuple[Path, ...] = ()


def read_existing(folder: Path, origin: str) -> Existing | None:
    """The embedder in a sentence-transformers or PEFT adapter folder, or None for a plain model."""
    if (folder / MODULES).is_file():
        return read_sentence_transformer(folder, origin)
    return Existing(folder) if (folder / ADAPTER).is_file() else None


def read_sentence_transformer(folder: Path, origin: str) -> Existing:
    """Pooling, prompts, length, Dense and Normalize of a sentence-transformers folder."""
    modules = [(module.kind, folder / module.path) for module in read_modules(folder)]
    kinds = [kind for kind, _ in modules]
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Dense", "Normalize"})
    if unknown or kinds[:2] != ["Transformer", "Pooling"]:
        raise UserError(
            f"{origin}: modules.json holds {', '.join(kinds)}; "
            "expected Transformer, Pooling, then any of Dense and Normalize"
        )
    backbone = modules[0][1]
    pooling = read_optional(modules[1][1] / "config.json")
    limits = read_optional(backbone / "sentence_bert_config.json")
    tokenizer = read_optional(backbone / "tokenizer_config.json")
    settings = read_optional(folder / "config_sentence_transformers.json")
    limit = limits.get("max_seq_length") or tokenizer.get("model_max_length")
    return Existing(
        backbone=backbone,
        pooling=pooling_mode(pooling, origin),
        pool_instruction=pooling.get("include_prompt", True),
        max_tokens=int(limit) if limit and limit < 1_000_000 else None,
        lowercase=bool(limits.get("do_lower_case", False)),
        normalize="Normalize" in kinds,
        prompts=settings.get("prompts") or {},
        dense=tuple(path for kind, path in modules if kind == "Dense"),
    )


def read_optional(path: Path) -> dict[str, Any]:
    """A JSON file's content, or nothing where it is absent."""
    return read_json(path) if path.is_file() else {}


def pooling_mode(config: dict[str, Any], origin: str) -> str:
    """Our name of the one pooling mode in 1_Pooling/config.json, in its old or new spelling."""
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [mode for key, mode in LEGACY.items() if config.get(key)]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UserError(
            f"{origin}: its pooling is {' + '.join(modes) or 'not given'}; known: {', '.join(POOLINGS)}"
        )
    return POOLINGS[modes[0]]


def read_dense(folders: Iterable[Path], origin: str) -> nn.Module | None:
    """The Dense modules of a sentence-transformers folder, in order."""
    parts = [part for folder in folders for part in dense_parts(folder, origin)]
    return nn.Sequential(*parts) if parts else None


def dense_parts(folder: Path, origin: str) -> list[nn.Module]:
    """One Dense module: a linear layer and its activation."""
    config = read_json(folder / "config.json")
    name = config.get("activation_function", "torch.nn.modules.linear.Identity").rpartition(".")[2]
    activation = {
        kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
    }
    weights = folder / "model.safetensors"
    if name not in activation or not weights.is_file():
        lacks = (
            f"activation {name} is not known"
            if name not in activation
            else "no model.safetensors (pickles are not read)"
        )
        raise UserError(f"{origin}: Dense in {folder.name}: {lacks}")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
    state = load_file(weights)
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in state.items()})
    return [linear, activation[name]()]


def settle(found: Existing, config: EncoderConfig, origin: str) -> EncoderConfig:
    """The config completed by what the folder says; a key that says otherwise is an error naming both."""
    said = {
        "attention": found.attention,
        "pooling": found.pooling,
        "pool_instruction": found.pool_instruction,
    }
    known = {key: value for key, value in said.items() if value is not None}
    clashes = [
        f"{origin}: encoder.{key} is {getattr(config, key)!r} in the run file, the model says {value!r}"
        for key, value in known.items()
        if key in config.model_fields_set and getattr(config, key) != value
    ]
    if clashes:
        raise UserError("\n".join(clashes))
    return config.model_copy(update=known)


def settle_text(found: Existing, text: TextFormat, origin: str) -> TextFormat:
    """Templates from the folder's prompts and limits where the run file gives none."""
    known: dict[str, Any] = {}
    if found.max_tokens is not None:
        known = {"max_query_tokens": found.max_tokens, "max_document_tokens": found.max_tokens}
    prompts = side_prompts(found.prompts)
    known |= {side: prompt + "{text}" for side, prompt in prompts.items()}
    clashes = [
        f"{origin}: text.{key} is {getattr(text, key)!r} in the run file, the model's own is {known[key]!r}"
        for key in ("query", "document")
        if key in known and key in text.model_fields_set and getattr(text, key) != known[key]
    ]
    if clashes:
        raise UserError("\n".join(clashes))
    return text.model_copy(
        update={key: value for key, value in known.items() if key not in text.model_fields_set}
    )


def side_prompts(prompts: dict[str, str]) -> dict[str, str]:
    """The prompt of each side, by the names that sentence-transformers looks for."""
    document = next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), None)
    sides = {"query": prompts.get("query"), "document": document}
    return {side: prompt for side, prompt in sides.items() if prompt}
