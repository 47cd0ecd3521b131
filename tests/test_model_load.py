"""Loading: what is refused, and how it is said."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import DECODERS, ENCODERS, save_tiny
from transformers import AutoConfig, AutoModel

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder, require_transformers


def load(path: Path, keep: int | None = None, **config: object) -> Encoder:
    base = Base(model=str(path), keep_first_layers=keep)
    return load_encoder(base, EncoderConfig.model_validate(config), TextFormat())


@pytest.mark.parametrize("version", ["4.57.1", "5.0.0", "5.1.9"])
def test_transformers_too_old(version: str) -> None:
    with pytest.raises(UserError) as error:
        require_transformers(version)
    assert str(error.value) == (
        f"transformers {version} ignores `is_causal: false` silently, so every decoder would stay causal; "
        "install transformers >= 5.2"
    )


@pytest.mark.parametrize("version", ["5.2.0", "5.2.0.dev0", "5.23.1", "6.0"])
def test_transformers_new_enough(version: str) -> None:
    require_transformers(version)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_cannot_be_causal(tmp_path: Path, family: str) -> None:
    path = save_tiny(family, tmp_path)
    with pytest.raises(
        UserError, match=rf"attention is 'causal', but model_type '{family}' is an encoder and"
    ):
        load(path, attention="causal")


@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_too_many_layers(tmp_path: Path, family: str) -> None:
    with pytest.raises(UserError, match="keep_first_layers is 4, the model has 3 layers"):
        load(save_tiny(family, tmp_path), keep=4)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its config\.json cannot be read"):
        load(tmp_path)


def test_broken_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"its config\.json cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("family", "sizes", "found"),
    [
        ("vit", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}, "embeddings"),
        (
            "t5",
            {"d_model": 32, "num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 16},
            "shared, encoder, decoder",
        ),
        ("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2}, "wte, wpe"),
    ],
)
def test_neither_decoder_nor_encoder(tmp_path: Path, family: str, sizes: dict[str, int], found: str) -> None:
    """Said from the config alone: no weight is there to be read."""
    AutoConfig.for_model(family, **sizes).save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert str(error.value).startswith(
        f"{tmp_path}: model_type '{family}' has neither a decoder's layout (embed_tokens, layers) nor a text "
        f"encoder's (embeddings of tokens, encoder.layer or layers); found: {found}"
    )


def test_no_weights(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="its weights cannot be read"):
        load(path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    torch.save(AutoModel.from_pretrained(path).state_dict(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights are in pytorch_model\.bin, a pickle"):
        load(path)


def test_missing_weights_are_counted(tmp_path: Path) -> None:
    """transformers would fill them with random numbers."""
    path = save_tiny("llama", tmp_path)
    config = json.loads((path / "config.json").read_text()) | {"num_hidden_layers": 4}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"9 weights are missing, first layers\.3\.input_layernorm\.weight"):
        load(path)


def test_weights_under_a_language_model_head(tmp_path: Path) -> None:
    path = save_tiny("qwen3", tmp_path, head=True)
    names = {name for name, _ in load(path).backbone.named_parameters()}
    assert "embed_tokens.weight" in names
    assert not any("lm_head" in name for name in names)


def test_an_encoders_pooler_is_left_out(tmp_path: Path) -> None:
    """It is no part of the vectors, so it must not train, be averaged or be missed."""
    encoder = load(save_tiny("bert", tmp_path))
    assert not any("pooler" in name for name, _ in encoder.named_parameters())


def test_a_checkpoint_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(
        UserError, match="it is an embedtrain checkpoint; start from its exported folder instead"
    ):
        load(tmp_path)


def test_a_bidirectional_base_is_not_made_causal_in_silence(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path, is_causal=False)
    with pytest.raises(
        UserError, match=r"encoder\.attention is 'causal' in the run file, the model says 'bidir"
    ):
        load(path, attention="causal")
