"""A model folder as servers find it: its JSON files, and names and shapes of its tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embedtrain.artifacts import is_inside, leads_inside
from embedtrain.config.errors import UserError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".msgpack", ".h5")
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "modernbert", "distilbert", "mpnet", "deberta-v2")
MAX_HEADER_BYTES = 100 * 10**6
POOLING_BOOLEANS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}


@dataclass(frozen=True)
class Module:
    """One entry of modules.json."""

    kind: str
    path: str
    type: str


@dataclass(frozen=True)
class Served:
    """A folder. What is absent reads as empty; a file that is no JSON is a UserError."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.path / name).is_file()

    def json(self, name: str) -> Any:
        """What stands in a JSON file; an empty dict where there is none."""
        return read_json_file(self.path / name) if self.has(name) else {}

    def mapping(self, name: str) -> dict[str, Any]:
        """The same of a file that must hold an object."""
        value = self.json(name)
        if not isinstance(value, dict):
            raise UserError(f"{self.path / name}: expected an object, found {type(value).__name__}")
        return value

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return self.mapping("config.json")

    @cached_property
    def modules(self) -> list[Module]:
        """The modules of sentence-transformers, in order."""
        entries = self.json("modules.json")
        try:
            modules = [Module(e["type"].rpartition(".")[2], e["path"], e["type"]) for e in entries]
        except (TypeError, KeyError, AttributeError):
            raise UserError(
                f"{self.path / 'modules.json'}: expected a list of objects with 'type' and 'path'"
            ) from None
        for module in modules:
            if not leads_inside(self.path, module.path):
                raise UserError(
                    f"{self.path / 'modules.json'}: module '{module.path}' lies outside the folder"
                )
        return modules

    def module(self, kind: str) -> Module | None:
        """The first module of a kind."""
        return next((module for module in self.modules if module.kind == kind), None)

    @cached_property
    def dense(self) -> list[Module]:
        """The Dense modules."""
        return [module for module in self.modules if module.kind == "Dense"]

    @cached_property
    def pooling_file(self) -> str:
        """The config of the Pooling module, by modules.json."""
        module = self.module("Pooling")
        return f"{module.path}/config.json" if module else "1_Pooling/config.json"

    @cached_property
    def pooling(self) -> dict[str, Any]:
        """What stands in it."""
        return self.mapping(self.pooling_file)

    @cached_property
    def pooling_mode(self) -> str | None:
        """The one mode that sentence-transformers 6 pools by: its name, else a boolean; None if unclear."""
        named = self.pooling.get("pooling_mode")
        if isinstance(named, str):
            return named
        modes = [mode for key, mode in POOLING_BOOLEANS.items() if self.pooling.get(key) is True]
        return modes[0] if len(modes) == 1 else None

    @cached_property
    def limits(self) -> dict[str, Any]:
        """sentence_bert_config.json."""
        return self.mapping("sentence_bert_config.json")

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json."""
        return self.mapping("tokenizer_config.json")

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """tokenizer.json."""
        return self.mapping("tokenizer.json")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """config_sentence_transformers.json."""
        return self.mapping("config_sentence_transformers.json")

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The prompts by name that put something before a text."""
        return {name: text for name, text in (self.settings.get("prompts") or {}).items() if text}

    @property
    def model_type(self) -> str:
        """The family."""
        return str(self.config.get("model_type", ""))

    @property
    def is_encoder(self) -> bool:
        """Whether the family always attends in both directions."""
        return self.model_type in ENCODERS

    @property
    def is_gemma(self) -> bool:
        """Whether the family has an attention switch of its own."""
        return self.model_type.startswith("gemma")

    @property
    def is_bidirectional(self) -> bool:
        """Whether transformers 5.23, and so sentence-transformers, lets tokens see those after them."""
        if self.is_encoder or self.config.get("is_causal") is False:
            return True
        return self.is_gemma and bool(self.config.get("use_bidirectional_attention"))

    @property
    def max_tokens(self) -> int | None:
        """Where sentence-transformers cuts a text."""
        limit = self.limits.get("max_seq_length") or self.tokenizer_config.get("model_max_length")
        return int(limit) if isinstance(limit, int | float) and limit < 1_000_000 else None

    @property
    def wraps_texts(self) -> bool:
        """Whether sentence-transformers 6 puts every text into the tokenizer's chat template."""
        templated = bool(self.tokenizer_config.get("chat_template")) or self.has("chat_template.jinja")
        said = self.limits.get("modality_config")
        told = "message" in said if isinstance(said, dict) else not self.limits
        return templated and told

    @cached_property
    def weight_files(self) -> list[Path]:
        """The safetensors files of the backbone, found as transformers finds them."""
        if self.has("model.safetensors"):
            return [self.path / "model.safetensors"]
        shards = self.mapping("model.safetensors.index.json").get("weight_map") or {}
        for name in shards.values():
            if not is_inside(name):
                index = self.path / "model.safetensors.index.json"
                raise UserError(f"{index}: it names '{name}', which lies outside the folder")
        return [self.path / name for name in sorted(set(shards.values()))]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of the backbone, by name."""
        return {
            name: shape
            for file in self.weight_files
            if file.is_file()
            for name, shape in read_shapes(file).items()
        }

    @cached_property
    def pickles(self) -> list[str]:
        """Files that can run code when they are read."""
        found = (p for p in self.path.rglob("*") if p.is_file() and p.suffix in PICKLES)
        return sorted(str(p.relative_to(self.path)) for p in found)


def open_served(path: Path | str) -> Served:
    """The folder; raises UserError where there is none."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give an exported model, for example runs/NAME/model")
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        raise UserError(f"{folder}: neither config.json nor modules.json, so this is no model folder")
    return Served(folder)


def read_json_file(path: Path) -> Any:
    """The value in a JSON file; raises UserError naming the place where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def read_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Shapes by name from the header of a safetensors file; no weight is read."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(MAX_HEADER_BYTES, path.stat().st_size):
            raise UserError(f"{path}: no safetensors file: its header would hold {size:,} bytes")
        try:
            header = json.loads(file.read(size))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"{path}: no safetensors file: its header is not JSON") from None
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
