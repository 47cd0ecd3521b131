"""The module that becomes an ONNX graph, in torch: sentence-transformers' vectors, padded either way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exports import DOCUMENTS, PLAIN, QUERIES, tiny_export

from embedtrain.model.load import open_encoder
from embedtrain.model.onnx import Graph, input_names
from embedtrain.model.st import open_sentence_transformer

OUTSIDE = PLAIN.model_copy(update={"query": "Find the answer:{text}"})
TEXTS = [*QUERIES, *DOCUMENTS, "short"]


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("pooling", ["mean", "weighted_mean", "last_token", "cls"])
def test_pooling_on_either_side(tmp_path: Path, pooling: str, padding: str) -> None:
    _, folder = tiny_export(tmp_path, pooling=pooling, append_eos=True)
    theirs = open_sentence_transformer(folder)
    expected = theirs.encode(TEXTS, side="")
    theirs.model.tokenizer.padding_side = padding
    batch = theirs.model.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert int(batch["attention_mask"].sum(1).min()) < batch["input_ids"].shape[1]  # the premise: padded
    graph = Graph(open_encoder(folder)).eval()
    with torch.inference_mode():
        states, found = graph(batch["input_ids"], batch["attention_mask"])
    assert states.shape == (*batch["input_ids"].shape, 32)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("append_eos", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
def test_a_prompt_outside_the_pool(tmp_path: Path, pooling: str, append_eos: bool) -> None:
    settings = {"pooling": pooling, "append_eos": append_eos, "pool_instruction": False}
    _, folder = tiny_export(tmp_path, text=OUTSIDE, **settings)
    theirs = open_sentence_transformer(folder)
    prompt = theirs.model.prompts["query"]
    rows = [prompt + text for text in TEXTS]
    batch = theirs.model.tokenizer(rows, padding=True, truncation=True, return_tensors="pt")
    skip = len(theirs.model.tokenizer(prompt)["input_ids"]) - append_eos
    pool_mask = batch["attention_mask"].clone()
    pool_mask[:, :skip] = 0
    graph = Graph(open_encoder(folder)).eval()
    with torch.inference_mode():
        _, found = graph(batch["input_ids"], batch["attention_mask"], pool_mask)
        _, whole = graph(batch["input_ids"], batch["attention_mask"])
    expected = theirs.encode(TEXTS, side="query")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, rtol=0)
    assert np.abs(whole.numpy() - expected).max() > 1e-3  # the premise: the mask matters


def test_the_prompt_is_a_third_input_only_where_it_matters(tmp_path: Path) -> None:
    names = {}
    for pooling in ("mean", "last_token"):
        for inside in (True, False):
            encoder, _ = tiny_export(
                tmp_path / f"{pooling}{inside}", text=OUTSIDE, pooling=pooling, pool_instruction=inside
            )
            names[pooling, inside] = input_names(encoder)
    assert names.pop(("mean", False)) == ["input_ids", "attention_mask", "pool_mask"]
    assert all(found == ["input_ids", "attention_mask"] for found in names.values())
