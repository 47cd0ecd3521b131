"""Embedders on disk: what their folders say is read, shown, and never contradicted in silence."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tiny_models import TEXTS, save_tiny
from transformers import AutoModel, AutoModelForCausalLM

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.existing import read_existing
from embedtrain.model.load import load_encoder, open_encoder

MODES = {"mean": "mean", "cls": "cls", "lasttoken": "last_token", "weightedmean": "weighted_mean"}


def save_embedder(
    folder: Path, family: str = "bert", mode: str = "mean", dense: bool = False, **changes: Any
) -> SentenceTransformer:
    """A tiny sentence-transformers model, saved by sentence-transformers itself."""
    base = save_tiny(family, folder.parent / "base", **changes)
    (base / "chat_template.jinja").unlink()
    modules: list[torch.nn.Module] = [Transformer(str(base)), Pooling(32, pooling_mode=mode)]
    if dense:
        torch.manual_seed(3)
        modules.append(Dense(32, 16))
    model = SentenceTransformer(
        modules=[*modules, Normalize()], device="cpu", prompts={"query": "find: ", "document": "text: "}
    )
    model.max_seq_length = 24
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_vectors_equal_sentence_transformers(tmp_path: Path, family: str, mode: str, dense: bool) -> None:
    """Prompts, limit, pooling, Dense and a decoder's causal attention come from the folder."""
    model = save_embedder(tmp_path / "st", family, mode, dense)
    encoder = open_encoder(tmp_path / "st")
    assert encoder.spec.pooling == MODES[mode]
    assert encoder.spec.attention == ("bidirectional" if family == "bert" else "causal")
    assert encoder.dim == (16 if dense else 32)
    assert encoder.spec.text.max_query_tokens == 24
    texts = [*TEXTS, "one two three " * 30]
    assert np.abs(encoder.encode(texts, "query") - model.encode_query(texts)).max() < 1e-6
    assert np.abs(encoder.encode(texts, "document") - model.encode_document(texts)).max() < 1e-6


def test_a_bidirectional_decoder_is_read_as_such(tmp_path: Path) -> None:
    save_embedder(tmp_path / "st", "qwen3", is_causal=False)
    model = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    encoder = open_encoder(tmp_path / "st")
    assert encoder.spec.attention == "bidirectional"
    short = ["list files"]
    assert np.abs(encoder.encode(short) - model.encode_query(short)).max() < 1e-6


def test_what_was_read_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_embedder(tmp_path / "st", dense=True)
    capsys.readouterr()
    open_encoder(tmp_path / "st")
    assert capsys.readouterr().err.endswith(
        "/st: bidirectional attention, mean pooling, prompts: document 'text: ', query 'find: ', "
        "16 dims through its Dense\n"
    )


@pytest.mark.parametrize(
    ("key", "value", "own"),
    [("pooling", "cls", "mean"), ("attention", "bidirectional", "causal"), ("pool_instruction", False, True)],
)
def test_a_contradiction_names_both_values(tmp_path: Path, key: str, value: object, own: object) -> None:
    save_embedder(tmp_path / "st", "llama")
    base = Base(model=str(tmp_path / "st"))
    with pytest.raises(UserError) as error:
        load_encoder(base, EncoderConfig.model_validate({key: value}), TextFormat())
    assert str(error.value) == (
        f"{base.model}: encoder.{key} is {value!r} in the run file, the model says {own!r}"
    )
    load_encoder(base, EncoderConfig.model_validate({key: own}), TextFormat())


def test_a_template_against_the_prompt(tmp_path: Path) -> None:
    save_embedder(tmp_path / "st")
    base = Base(model=str(tmp_path / "st"))
    with pytest.raises(
        UserError, match=r"text\.query is 'Query: \{text\}' in the run file, .* 'find: \{text\}'"
    ):
        load_encoder(base, EncoderConfig(), TextFormat(query="Query: {text}"))
    encoder = load_encoder(base, EncoderConfig(), TextFormat(max_query_tokens=7))
    assert encoder.spec.text.query == "find: {text}"
    assert (encoder.spec.text.max_query_tokens, encoder.spec.text.max_document_tokens) == (7, 24)


def test_legacy_pooling_and_module_names(tmp_path: Path) -> None:
    model = save_embedder(tmp_path / "st", mode="cls")
    modules = json.loads((tmp_path / "st/modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    (tmp_path / "st/modules.json").write_text(json.dumps(modules))
    flags = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
    }
    (tmp_path / "st/1_Pooling/config.json").write_text(json.dumps(flags))
    encoder = open_encoder(tmp_path / "st")
    assert encoder.spec.pooling == "cls"
    assert np.abs(encoder.encode(TEXTS) - model.encode_query(list(TEXTS))).max() < 1e-6


def test_lower_case_is_honoured(tmp_path: Path) -> None:
    save_embedder(tmp_path / "st")
    (tmp_path / "st/sentence_bert_config.json").write_text('{"max_seq_length": 24, "do_lower_case": true}')
    encoder = open_encoder(tmp_path / "st")
    assert np.array_equal(encoder.encode(["List FILES"]), encoder.encode(["list files"]))


@pytest.mark.parametrize(
    ("pooling", "says"),
    [
        ({"pooling_mode": "max"}, "its pooling is max; known: mean, cls, lasttoken, weightedmean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "its pooling is cls + mean;"),
        ({}, "its pooling is not given;"),
    ],
)
def test_other_poolings_are_named(tmp_path: Path, pooling: dict[str, object], says: str) -> None:
    save_embedder(tmp_path / "st")
    (tmp_path / "st/1_Pooling/config.json").write_text(json.dumps(pooling))
    with pytest.raises(UserError) as error:
        open_encoder(tmp_path / "st")
    assert says in str(error.value)


def test_other_modules_are_named(tmp_path: Path) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_CNN", "CNN")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(
        UserError, match=r"modules\.json holds Transformer, Pooling, CNN; expected Transformer"
    ):
        open_encoder(tmp_path)


def test_a_pickled_dense_is_refused(tmp_path: Path) -> None:
    save_embedder(tmp_path / "st", dense=True)
    next((tmp_path / "st").glob("2_Dense/model.safetensors")).rename(
        tmp_path / "st/2_Dense/pytorch_model.bin"
    )
    with pytest.raises(UserError, match=r"Dense in 2_Dense: no model\.safetensors \(pickles are not read\)"):
        open_encoder(tmp_path / "st")


def save_adapter(folder: Path, base: Path, *, head: bool = False) -> torch.nn.Module:
    """A LoRA adapter written by peft, and the merged backbone it stands for."""
    kind = AutoModelForCausalLM if head else AutoModel
    model = kind.from_pretrained(base)
    torch.manual_seed(4)
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = peft.get_peft_model(model, settings)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(str(folder))
    merged = adapted.merge_and_unload()
    return merged.model if head else merged


@pytest.mark.parametrize("head", [False, True])
def test_an_adapter_is_folded_into_its_base(tmp_path: Path, head: bool) -> None:
    """Trained on the bare model or under a language-model head."""
    base = save_tiny("llama", tmp_path / "base", head=head)
    merged = save_adapter(tmp_path / "adapter", base, head=head)
    model = Base(model=str(tmp_path / "adapter"))
    encoder = load_encoder(model, EncoderConfig(attention="bidirectional"), TextFormat())
    untouched = load_encoder(Base(model=str(base)), EncoderConfig(), TextFormat())
    assert np.abs(encoder.encode(TEXTS) - untouched.encode(TEXTS)).max() > 1e-3
    untouched.backbone.load_state_dict(merged.state_dict())
    assert np.abs(encoder.encode(TEXTS) - untouched.encode(TEXTS)).max() < 1e-6
    assert not any("lora" in name for name, _ in encoder.named_parameters())


def test_an_adapters_own_config_tells_its_attention(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    save_adapter(tmp_path / "adapter", base)
    config = json.loads((base / "config.json").read_text()) | {"is_causal": False}
    (tmp_path / "adapter/config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"encoder\.attention is 'causal' in the run file, the model says 'bidir"
    ):
        load_encoder(Base(model=str(tmp_path / "adapter")), EncoderConfig(attention="causal"), TextFormat())
    assert open_encoder(tmp_path / "adapter").spec.attention == "bidirectional"


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", save_tiny("llama", tmp_path / "base"))
    save_tiny("llama", tmp_path / "base", num_hidden_layers=2)
    with pytest.raises(UserError, match=r"the adapter does not fit its base: 4 names differ, first lay"):
        load_encoder(Base(model=str(tmp_path / "adapter")), EncoderConfig(), TextFormat())


def test_an_adapter_without_a_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(
        UserError, match="expected a LoRA adapter that names its base_model_name_or_path; found"
    ):
        open_encoder(tmp_path)


def test_a_plain_model_is_no_embedder(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    assert read_existing(path, "x") is None
    with pytest.raises(UserError, match=r"no embedder; found neither encoder\.json .* nor modules\.json"):
        open_encoder(path)
