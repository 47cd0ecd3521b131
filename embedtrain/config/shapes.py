"""Shapes of models: what config.json says of a backbone's size, and the weights and products that follow.

A shipped table (shapes.yaml) holds those of well-known models, so that nothing is fetched to plan a run.
All counts are of the backbone alone, as embedtrain loads it: without a language model's head and a pooler.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from embedtrain.config.tuning import Lora

TABLE = Path(__file__).with_name("shapes.yaml")
VERSION = re.compile(r"==.*$")


@dataclass(frozen=True, slots=True)
class Family:
    """What a family's layers are made of."""

    gated: bool = True  # three matrices in the MLP: gate, up and down; else two
    biases: bool = False  # on every linear layer
    attention_biases: bool = False  # on queries, keys and values
    head_norms: bool = False  # of each head's queries and keys
    norms: int = 2  # in a layer
    is_encoder: bool = False
    token_types: int = 0
    dropout: float = 0.0  # of hidden states and attention while training, by default


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(attention_biases=True),
    "qwen3": Family(head_norms=True),
    "gemma3_text": Family(head_norms=True, norms=4),
    "bert": Family(gated=False, biases=True, is_encoder=True, token_types=2, dropout=0.1),
    "xlm-roberta": Family(gated=False, biases=True, is_encoder=True, token_types=1, dropout=0.1),
    "modernbert": Family(is_encoder=True),
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear layer: its name as LoRA's targets call it, numbers in and numbers out."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a backbone."""

    family: str
    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab: int
    positions: int
    kv_heads: int = 0  # 0: as many as heads
    head_dim: int = 0  # 0: hidden / heads
    tied: bool = True
    published: int | None = None

    @property
    def kind(self) -> Family:
        """What its layers are made of."""
        return FAMILIES[self.family]

    @property
    def head_width(self) -> int:
        """Numbers of a head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def query_width(self) -> int:
        """Numbers of all heads' queries."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """Numbers of all heads' keys, and of their values."""
        return (self.kv_heads or self.heads) * self.head_width

    def cut(self, layers: int | None) -> "Shape":
        """The first so many layers of it."""
        return self if layers is None else replace(self, layers=min(layers, self.layers), published=None)

    def matrices(self) -> list[Matrix]:
        """The linear layers of one layer."""
        d, q, kv, m = self.hidden, self.query_width, self.key_width, self.intermediate
        if self.family == "modernbert":
            return [Matrix("Wqkv", d, 3 * d), Matrix("Wo", d, d), Matrix("Wi", d, 2 * m), Matrix("Wo", m, d)]
        if not self.kind.gated:
            attention = [Matrix(name, d, d) for name in ("query", "key", "value", "dense")]
            return [*attention, Matrix("dense", d, m), Matrix("dense", m, d)]
        attention = [Matrix("q_proj", d, q), Matrix("k_proj", d, kv), Matrix("v_proj", d, kv)]
        mlp = [Matrix("gate_proj", d, m), Matrix("up_proj", d, m), Matrix("down_proj", m, d)]
        return [*attention, Matrix("o_proj", q, d), *mlp]

    @property
    def products(self) -> int:
        """Weights of all linear layers: multiply-accumulates a token, attention's own left out."""
        return self.layers * sum(matrix.inputs * matrix.outputs for matrix in self.matrices())

    @property
    def embeddings(self) -> int:
        """Weights of the tables of tokens, positions and token types, and of their norm."""
        d, kind = self.hidden, self.kind
        if not kind.is_encoder:
            return self.vocab * d
        if kind.biases:
            return (self.vocab + self.positions + kind.token_types) * d + 2 * d
        return self.vocab * d + d

    @property
    def parameters(self) -> int:
        """All weights."""
        d, kind = self.hidden, self.kind
        one = kind.norms * d * (2 if kind.biases else 1)
        one += sum(matrix.outputs for matrix in self.matrices()) if kind.biases else 0
        one += self.query_width + 2 * self.key_width if kind.attention_biases else 0
        one += 2 * self.head_width if kind.head_norms else 0
        last = 0 if kind.biases else d  # BERT has no norm behind its layers
        first = -d if self.family == "modernbert" else 0  # its first layer has no norm before attention
        return self.embeddings + self.products + self.layers * one + last + first

    def adapters(self, lora: Lora) -> int:
        """Weights of LoRA's A and B on all linear layers, or on those it names."""
        adapted = [m for m in self.matrices() if lora.targets == "all_linear" or m.name in lora.targets]
        return self.layers * lora.rank * sum(m.inputs + m.outputs for m in adapted)


@cache
def shape_table() -> dict[str, Shape]:
    """The shipped shapes by every name they go by."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    entries: dict[str, dict[str, Any]] = yaml.load(TABLE.read_text(encoding="utf-8"), loader)
    return {name: shape for first, entry in entries.items() for name, shape in named(first, entry)}


def named(first: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """An entry under all its names."""
    values = dict(entry)
    names = [first, *values.pop("same", ())]
    shape = Shape(**values)
    return ((name, shape) for name in names)


def known_shape(model: str) -> Shape | None:
    """The shipped shape of a hub id or a `pip:` package of any version; None where there is none."""
    return shape_table().get(VERSION.sub("", model))


def read_shape(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a config.json tells; None where it is of a family unknown here, or not whole."""
    keys = {
        "hidden": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "intermediate": "intermediate_size",
        "vocab": "vocab_size",
        "positions": "max_position_embeddings",
    }
    optional = {"kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
    family = config.get("model_type")
    sizes = {name: config.get(key) for name, key in keys.items()}
    sizes |= {name: config.get(key) or 0 for name, key in optional.items()}
    if family not in FAMILIES or not all(is_size(name, size) for name, size in sizes.items()):
        return None
    tied = config.get("tie_word_embeddings", True)
    return Shape(family=family, tied=bool(tied), **sizes)  # type: ignore[arg-type]


def is_size(name: str, value: object) -> bool:
    """Whether a config's number can be one; 0 stands for what follows from the others."""
    is_free = next(field for field in fields(Shape) if field.name == name).default == 0
    return type(value) is int and (value > 0 or is_free)
