"""Checkpoints: what comes back is what was saved, to the bit, and never on another base."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_model_existing import save_embedder
from test_model_lora import fill_b
from tiny_models import DECODERS, ENCODERS, TEXTS, save_tiny
from torch import nn

from embedtrain.average import tensors_in_memory
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.model.checkpoint import all_tensors, save_encoder, set_weights
from embedtrain.model.encoder import Encoder, weights_hash
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.lora import add_lora, fold_lora, tune_all

TEXT = TextFormat(query="find: {text}", document="text: {text}", max_query_tokens=20)


def load_tiny(folder: Path, family: str = "llama", precision: str = "float32", **config: object) -> Encoder:
    path = save_tiny(family, folder / family)
    settings = EncoderConfig.model_validate(config)
    return load_encoder(Base(model=str(path), keep_first_layers=2), settings, TEXT, precision=precision)


def trained(folder: Path, family: str = "llama", **config: object) -> Encoder:
    """An encoder with adapters that do something."""
    encoder = load_tiny(folder, family, **config)
    add_lora(encoder, Lora(rank=4, rslora=True), seed=1)
    fill_b(encoder)
    return encoder


@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_an_adapter_comes_back_to_the_bit(tmp_path: Path, family: str) -> None:
    encoder = trained(tmp_path, family, pooling="weighted_mean", append_eos=True)
    folder = save_encoder(encoder, tmp_path / "saved")
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "adapter.safetensors", "config.json", "encoder.json", "tokenizer.json",
    }  # fmt: skip
    back = open_encoder(folder)
    assert back.spec == encoder.spec
    assert back.lora == encoder.lora
    for side in ("query", "document"):
        assert np.array_equal(back.encode(TEXTS, side), encoder.encode(TEXTS, side))
    assert weights_hash(back) == weights_hash(encoder)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", DECODERS)
def test_the_attention_mode_is_kept(tmp_path: Path, family: str, attention: str) -> None:
    """Seen from outside: the first layer's first state under another last token."""
    encoder = trained(tmp_path, family, attention=attention)
    full = load_tiny(tmp_path, family, attention=attention)
    tune_all(full)
    for number, saved in enumerate((encoder, full)):
        back = open_encoder(save_encoder(saved, tmp_path / f"{number}"))
        assert back.spec.attention == attention
        states = [
            back.backbone(
                input_ids=torch.tensor([[300, 301, last]]), output_hidden_states=True
            ).hidden_states[1]
            for last in (310, 350)
        ]
        assert torch.equal(states[0][0, 0], states[1][0, 0]) == (attention == "causal")


@pytest.mark.parametrize("family", DECODERS)
def test_adapter_merged_weights_and_export_are_one_model(tmp_path: Path, family: str) -> None:
    """The same vectors, and a first token that sees the last, however the model was saved."""
    encoder = trained(tmp_path, family)
    folders = [save_encoder(encoder, tmp_path / "adapter"), tmp_path / "export", tmp_path / "merged"]
    export_encoder(encoder, folders[1])
    fold_lora(encoder)
    save_encoder(encoder, folders[2])
    expected = {side: encoder.encode(TEXTS, side, max_tokens=18) for side in ("query", "document")}
    for folder in folders:
        back = open_encoder(folder)
        for side, vectors in expected.items():
            assert np.abs(back.encode(TEXTS, side, max_tokens=18) - vectors).max() < 1e-5
        firsts = [
            back.backbone(input_ids=torch.tensor([[300, 301, last]])).last_hidden_state[0, 0]
            for last in (310, 350)
        ]
        assert not torch.equal(*firsts)
        assert back.spec.attention == "bidirectional"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_all_weights_come_back_to_the_bit(tmp_path: Path, family: str, precision: str) -> None:
    encoder = load_tiny(tmp_path, family, precision)
    tune_all(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    back = open_encoder(save_encoder(encoder, tmp_path / "saved"))
    assert back.spec == encoder.spec
    assert np.array_equal(back.encode(TEXTS), encoder.encode(TEXTS))


def test_weights_and_not_the_base_are_read_from_a_full_checkpoint(tmp_path: Path) -> None:
    encoder = load_tiny(tmp_path)
    tune_all(encoder)
    folder = save_encoder(encoder, tmp_path / "saved")
    save_tiny("llama", tmp_path / "llama", seed=9)
    assert np.array_equal(open_encoder(folder).encode(TEXTS), encoder.encode(TEXTS))


def test_another_base_is_refused(tmp_path: Path) -> None:
    folder = save_encoder(trained(tmp_path), tmp_path / "saved")
    save_tiny("llama", tmp_path / "llama", seed=9)
    with pytest.raises(
        UserError, match=r"its adapter was trained on .* but that base now has weights [0-9a-f]{64}"
    ):
        open_encoder(folder)


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    folder = save_encoder(trained(tmp_path), tmp_path / "saved")
    (tmp_path / "llama").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="llama: no such folder; expected a folder"):
        open_encoder(folder)


def test_folded_adapters_are_saved_as_all_weights(tmp_path: Path) -> None:
    encoder = trained(tmp_path)
    add_lora(encoder, Lora(rank=2), seed=1)
    fill_b(encoder)
    back = open_encoder(save_encoder(encoder, tmp_path / "saved"))
    assert (tmp_path / "saved/model.safetensors").is_file()
    assert back.lora is None
    assert (1 - (back.encode(TEXTS) * encoder.encode(TEXTS)).sum(axis=1)).max() < 1e-6


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_dense_comes_back(tmp_path: Path, tuning: str) -> None:
    save_embedder(tmp_path / "st", dense=True)
    encoder = open_encoder(tmp_path / "st")
    if tuning == "lora":
        add_lora(encoder, Lora(rank=4), seed=1)
        fill_b(encoder)
    else:
        tune_all(encoder)
        assert isinstance(encoder.dense, nn.Module)
        nn.init.normal_(next(encoder.dense.parameters()))
    back = open_encoder(save_encoder(encoder, tmp_path / "saved"))
    assert back.dim == 16
    assert np.array_equal(back.encode(TEXTS), encoder.encode(TEXTS))


def test_set_weights_replaces_all(tmp_path: Path) -> None:
    """What a soup does: average the merged tensors of two, put them in place, save."""
    one, other = trained(tmp_path), trained(tmp_path)
    fill_b(other, seed=8)
    tensors = [dict(all_tensors(e)) for e in (one, other)]
    halves = {name: (tensors[0][name] + tensors[1][name]) / 2 for name in tensors[0]}
    set_weights(one, tensors_in_memory(halves, "soup"))
    back = open_encoder(save_encoder(one, tmp_path / "saved"))
    assert dict(all_tensors(back)).keys() == halves.keys()
    assert all(torch.equal(tensor, halves[name]) for name, tensor in all_tensors(back))
    with pytest.raises(UserError, match="x: its tensors are not the encoder's: 1 names differ, first extra"):
        set_weights(one, tensors_in_memory(halves | {"extra": torch.zeros(1)}, "x"))


def test_another_format_is_refused(tmp_path: Path) -> None:
    folder = save_encoder(trained(tmp_path), tmp_path / "saved")
    values = json.loads((folder / "encoder.json").read_text()) | {"format": 99}
    (folder / "encoder.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"encoder\.json: format 99, this embedtrain reads format 1"):
        open_encoder(folder)


def test_the_hash_follows_the_weights(tmp_path: Path) -> None:
    encoder = trained(tmp_path)
    first = weights_hash(encoder)
    assert weights_hash(encoder) == first
    _, parameter = encoder.trainable()[0]
    with torch.no_grad():
        parameter.add_(1)
    moved = weights_hash(encoder)
    assert moved != first
    with torch.no_grad():
        parameter.sub_(1)
    assert weights_hash(load_tiny(tmp_path)) != weights_hash(load_tiny(tmp_path, attention="causal"))
