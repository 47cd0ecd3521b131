"""Exported folders: what stands in them, and that transformers and sentence-transformers read it as meant."""

from pathlib import Path

import pytest
import torch
from exports import DOCUMENTS, PLAIN, PREFIXED, QUERIES, change_json, tiny_encoder, tiny_export
from safetensors.torch import load_file
from tiny_models import DECODERS, ENCODERS, save_tiny
from torch import nn
from transformers import AutoModel

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.parity import check_parity, cosine_distances
from embedtrain.model.st import open_sentence_transformer


def first_state_moves(folder: Path, kernel: str, padding: str) -> bool:
    """Whether transformers' own model lets the last token of a text change the first token's state."""
    model = AutoModel.from_pretrained(folder, attn_implementation=kernel)
    ids = torch.arange(10, 50).reshape(1, -1).repeat(2, 1)
    ids[1, -1] = 60
    mask = torch.ones_like(ids)
    pads, zeros = torch.ones(2, 7, dtype=torch.long), torch.zeros(2, 7, dtype=torch.long)
    parts = {
        "none": ([ids], [mask], 0),
        "left": ([pads, ids], [zeros, mask], 7),
        "right": ([ids, pads], [mask, zeros], 0),
    }
    all_ids, all_mask, first = parts[padding]
    with torch.inference_mode():
        states = model(
            input_ids=torch.cat(all_ids, 1), attention_mask=torch.cat(all_mask, 1)
        ).last_hidden_state
    return not torch.equal(states[0, first], states[1, first])


@pytest.mark.parametrize("family", DECODERS + ENCODERS)
def test_sentence_transformers_gives_the_trained_vectors(tmp_path: Path, family: str) -> None:
    encoder, folder = tiny_export(tmp_path, family)
    found = check_parity(encoder, folder, QUERIES, DOCUMENTS)
    assert found["max_cosine_distance"] <= 1e-6
    assert all(side["num_at_limit"] >= 1 for side in found["compared"].values())


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_transformers_attends_as_trained(tmp_path: Path, family: str, attention: str) -> None:
    """40 tokens, five times the tiny models' window."""
    encoder, folder = tiny_export(tmp_path, family, attention=attention)
    for kernel in ("eager", "sdpa"):
        for padding in ("none", "left", "right"):
            assert first_state_moves(folder, kernel, padding) == (attention == "bidirectional"), (
                kernel,
                padding,
            )
    check_parity(encoder, folder, QUERIES, DOCUMENTS)


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean", "last_token", "cls"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_pooling_on_either_padding(tmp_path: Path, pooling: str, padding: str) -> None:
    encoder, folder = tiny_export(tmp_path, pooling=pooling, append_eos=True)
    theirs = open_sentence_transformer(folder)
    theirs.model.tokenizer.padding_side = padding
    texts = [*QUERIES, "short"]
    found = cosine_distances(
        encoder.encode(texts, "document", max_tokens=20), theirs.encode(texts, side="document")
    )
    assert found.max() <= 1e-6
    change_json(folder / "tokenizer_config.json", lambda c: c.update(padding_side=padding))
    check_parity(encoder, folder, QUERIES, DOCUMENTS)


def test_end_token_survives_truncation(tmp_path: Path) -> None:
    encoder, folder = tiny_export(tmp_path, append_eos=True, pooling="last_token")
    ids = open_sentence_transformer(folder).model.preprocess(["word " * 100, "a"])["input_ids"]
    assert ids.shape == (2, 20)
    assert ids[0, -1] == encoder.tokenizer.token_to_id("</s>")
    assert ids[0, -2] != ids[0, -1]


@pytest.mark.parametrize("family", ["llama", "bert", "gemma3_text"])
@pytest.mark.parametrize("append_eos", [False, True])
def test_prompt_outside_the_pool(tmp_path: Path, family: str, append_eos: bool) -> None:
    text = PLAIN.model_copy(update={"query": "Find the answer:{text}"})
    encoder, folder = tiny_export(tmp_path, family, text, pool_instruction=False, append_eos=append_eos)
    assert read_json(folder / "1_Pooling/config.json")["include_prompt"] is False
    check_parity(encoder, folder, QUERIES, DOCUMENTS)
    change_json(folder / "1_Pooling/config.json", lambda c: c.update(include_prompt=True))
    with pytest.raises(UserError, match="pools from token"):
        check_parity(encoder, folder, QUERIES, DOCUMENTS)


def test_space_before_the_text_outside_the_pool_is_refused(tmp_path: Path) -> None:
    text = PLAIN.model_copy(update={"query": "query: {text}"})
    encoder = tiny_encoder(tmp_path / "base", text=text, pool_instruction=False)
    with pytest.raises(UserError, match="ends in a space"):
        export_encoder(encoder, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("{text} response:", "{text}"),
        ("{text} end", "{text} end"),
        ("{text}</s>", "{text}"),
        ("{text}</s>.", "{text}</s>."),
    ],
)
def test_suffixes_are_refused(tmp_path: Path, query: str, document: str) -> None:
    encoder = tiny_encoder(
        tmp_path / "base", text=PLAIN.model_copy(update={"query": query, "document": document})
    )
    with pytest.raises(UserError, match="holds prefixes only") as caught:
        export_encoder(encoder, tmp_path / "model")
    assert repr(query.removeprefix("{text}")) in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_special_suffix_moves_to_the_tokenizer(tmp_path: Path) -> None:
    text = PLAIN.model_copy(update={"query": "query: {text}</s>", "document": "{text}</s>"})
    encoder, folder = tiny_export(tmp_path, text=text, pooling="last_token")
    check_parity(encoder, folder, QUERIES, DOCUMENTS)
    assert read_json(folder / "config_sentence_transformers.json")["prompts"] == {
        "query": "query: ",
        "document": "",
    }
    cut = open_sentence_transformer(folder).model.preprocess(["word " * 100])["input_ids"]
    assert cut[0, -1] == encoder.tokenizer.token_to_id("</s>")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_cast_once(tmp_path: Path, precision: str) -> None:
    encoder, folder = tiny_export(tmp_path, precision=precision)
    exact = tmp_path / "exact"
    export_encoder(encoder, exact)
    found, expected = load_file(folder / "model.safetensors"), load_file(exact / "model.safetensors")
    assert all(torch.equal(found[name], expected[name].to(getattr(torch, precision))) for name in expected)
    assert found.keys() == expected.keys()
    report = check_parity(encoder, folder, QUERIES, DOCUMENTS)
    assert report["bound"] == 1e-3
    assert report["max_cosine_distance"] > 1e-9  # the premise: something was rounded


def test_encoder_in_bfloat16_is_compared_at_its_own_precision(tmp_path: Path) -> None:
    save_tiny("llama", tmp_path / "base")
    base, config = Base(model=str(tmp_path / "base")), EncoderConfig()
    encoder = load_encoder(base, config, PREFIXED, precision="bfloat16")
    for precision in ("float32", "bfloat16"):
        export_encoder(encoder, tmp_path / precision, precision=precision)
        report = check_parity(encoder, tmp_path / precision, QUERIES, DOCUMENTS)
        assert report["precision"] == {"folder": precision, "encoder": "bfloat16"}
        assert report["bound"] == 1e-3


def test_dense_and_no_normalise(tmp_path: Path) -> None:
    plain = tiny_encoder(tmp_path / "base")
    dense = nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 16, bias=False), nn.Identity())
    encoder = Encoder(plain.backbone, plain.tokenizer, plain.spec, dense)
    export_encoder(encoder, tmp_path / "model")
    check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS)
    kinds = [m["path"] for m in read_json(tmp_path / "model/modules.json")]
    assert kinds == ["", "1_Pooling", "2_Dense", "3_Dense", "4_Normalize"]
    again = open_encoder(tmp_path / "model")
    assert cosine_distances(again.encode(QUERIES), encoder.encode(QUERIES, max_tokens=20)).max() <= 1e-6


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert"])
def test_opened_again_it_is_the_same_encoder(tmp_path: Path, family: str) -> None:
    encoder, folder = tiny_export(tmp_path, family, pooling="cls")
    again = open_encoder(folder)
    assert (again.spec.attention, again.spec.pooling) == ("bidirectional", "cls")
    for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        assert (
            cosine_distances(again.encode(texts, side), encoder.encode(texts, side, max_tokens=20)).max()
            <= 1e-6
        )
