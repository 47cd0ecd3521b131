"""Tiny random models of two layers in place of those that the recipes name, each of its family."""

from pathlib import Path

import torch
from exports import use_own_tokenizer
from tiny_models import save_tiny
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder

LAYERS = 2
# the windows of the real ones, and room for their token limits
FAMILY: dict[str, dict[str, object]] = {
    "bert": {"max_position_embeddings": 514},
    "mistral": {"max_position_embeddings": 4096, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 4096, "use_sliding_window": False},
    "qwen3": {"max_position_embeddings": 4096},
    "xlm-roberta": {"max_position_embeddings": 1026},
}
SEARCH = "Represent this sentence for searching relevant passages: {text}"
QWEN3 = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:{text}"
# hub id → family, and the number of dims that is the student's own, smaller than its teacher's
BASES: dict[str, tuple[str, int]] = {
    "Qwen/Qwen2-0.5B": ("qwen2", 32),
    "mistralai/Mistral-7B-v0.1": ("mistral", 32),
    "nreimers/MiniLM-L6-H384-uncased": ("bert", 24),
}
# hub id → family, how it pools, and its query's template
EMBEDDERS: dict[str, tuple[str, EncoderConfig, str]] = {
    "Qwen/Qwen3-Embedding-8B": (
        "qwen3",
        EncoderConfig(attention="causal", pooling="last_token", append_eos=True),
        QWEN3,
    ),
    "Snowflake/snowflake-arctic-embed-m-v1.5": ("bert", EncoderConfig(pooling="cls"), SEARCH),
    "mixedbread-ai/mxbai-embed-large-v1": ("bert", EncoderConfig(pooling="cls"), SEARCH),
    "BAAI/bge-m3": ("xlm-roberta", EncoderConfig(pooling="cls"), "{text}"),
}
RERANKERS = {"BAAI/bge-reranker-v2-m3": "xlm-roberta"}


def save_model(model: str, folder: Path) -> Path:
    """A tiny stand-in for a model of the hub, in a folder of its own below `folder`."""
    place = folder / model
    if model in BASES:
        family, dim = BASES[model]
        save_backbone(family, place, seed=1, hidden_size=dim)
    elif model in RERANKERS:
        save_reranker(RERANKERS[model], place)
    else:
        save_embedder(*EMBEDDERS[model], place)
    return place


def save_backbone(family: str, place: Path, *, seed: int, **changes: object) -> Path:
    """Two layers of a family with a tokenizer."""
    save_tiny(family, place, seed=seed, num_hidden_layers=LAYERS, **FAMILY[family], **changes)
    if family == "qwen2":
        use_own_tokenizer(place)
    return place


def save_embedder(family: str, how: EncoderConfig, query: str, place: Path) -> None:
    """A sentence-transformers folder with the pooling and the query's prompt of the real one."""
    base = save_backbone(family, place.with_name(f"{place.name}-backbone"), seed=2)
    text = TextFormat(query=query, max_query_tokens=256, max_document_tokens=256)
    export_encoder(load_encoder(Base(model=str(base)), how, text), place)


def save_reranker(family: str, place: Path) -> None:
    """A classification head with one output on a backbone, as transformers saves it."""
    save_backbone(family, place, seed=3)
    torch.manual_seed(4)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(place, num_labels=1))
    for layer in (model.classifier.dense, model.classifier.out_proj):
        nn.init.normal_(layer.weight)
    model.save_pretrained(place)
