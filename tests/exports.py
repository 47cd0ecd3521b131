"""Tiny encoders and their exported folders, for the tests of export."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tiny_models import TEXTS, save_tiny
from transformers import AutoTokenizer

from embedtrain.artifacts import read_json, write_json
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.sources import Source
from embedtrain.config.tuning import Lora
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, lora_layers
from embedtrain.model.prompts import SourcePrompts
from embedtrain.text import source_text

PLAIN = TextFormat(max_query_tokens=12, max_document_tokens=20)
PREFIXED = PLAIN.model_copy(update={"query": "query: {text}", "document": "text: {text}"})
INSTRUCTED = TextFormat(
    query="Instruct: {instruction}\nQuery:{text}", max_query_tokens=400, max_document_tokens=40
)
QUERIES, DOCUMENTS = list(TEXTS[:3]), list(TEXTS[3:])


def tiny_encoder(
    folder: Path, family: str = "llama", text: TextFormat = PREFIXED, **settings: object
) -> Encoder:
    """An encoder on a tiny random model, with adapters that change its vectors."""
    save_tiny(family, folder)
    if family == "qwen2":
        use_own_tokenizer(folder)
    encoder = load_encoder(Base(model=str(folder)), EncoderConfig(**settings), text)
    add_lora(encoder, Lora(rank=2, alpha=4), seed=1)
    torch.manual_seed(2)
    for _, layer in lora_layers(encoder.backbone):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.2)
    return encoder


def use_own_tokenizer(folder: Path) -> None:
    """Give a tiny Qwen2 the normaliser and splitter of real ones, which transformers puts in anyway."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    tokenizer.save_pretrained(folder)


def tiny_export(
    place: Path,
    family: str = "llama",
    text: TextFormat = PREFIXED,
    precision: str = "float32",
    **settings: object,
) -> tuple[Encoder, Path]:
    """A tiny encoder and the folder it was exported to."""
    encoder = tiny_encoder(place / "base", family, text, **settings)
    export_encoder(encoder, place / "model", precision=precision)
    return encoder, place / "model"


def source_prompts(
    encoder: Encoder, sources: Mapping[str, Mapping[str, object]], tasks: Sequence[str] = ()
) -> dict[str, SourcePrompts]:
    """What an export is to know of sources with these values."""
    texts = {
        name: source_text(encoder.spec.text, Source.model_validate({"rows": "x"} | dict(values)))
        for name, values in sources.items()
    }
    return {name: SourcePrompts(text, tasks) for name, text in texts.items()}


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change the value in a JSON file in place."""
    value = read_json(path)
    change(value)
    write_json(path, value)
