"""The plain transformers block of a model card gives the vectors of sentence-transformers."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exports import DOCUMENTS, PLAIN, PREFIXED, QUERIES, tiny_encoder
from torch import nn

from embedtrain.artifacts import read_json
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.snippets import transformers_snippet
from embedtrain.model.st import open_sentence_transformer

TEXTS = [*QUERIES, *DOCUMENTS, "short", "a text far over the limit " * 60]
OUTSIDE = PLAIN.model_copy(update={"query": "Find the answer:{text}", "document": "A text:{text}"})


def run_block(page: Path, folder: Path) -> dict[str, object]:
    """What the last Python block of a written page defines, MODEL being the folder."""
    *_, code = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code.replace("MODEL", str(folder)), str(page), "exec"), names)
    return names


def check_block(encoder: Encoder, place: Path) -> dict[str, object]:
    """Export the encoder, run the block out of the folder's card, compare both sides' vectors."""
    folder = place / "model"
    export_encoder(encoder, folder)
    prompts = read_json(folder / "config_sentence_transformers.json")["prompts"]
    assert transformers_snippet(encoder, prompts) in (folder / "README.md").read_text()
    theirs = open_sentence_transformer(folder)
    names = run_block(folder / "README.md", folder)
    for side in ("query", "document"):
        expected = theirs.encode(TEXTS, side=side, normalize=False)
        found = names["encode"](TEXTS, prompts[side]).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    return names


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"pooling": "mean"}),
        ("llama", {"pooling": "weighted_mean"}),
        ("qwen3", {"pooling": "last_token", "append_eos": True}),
        ("qwen2", {"pooling": "last_token", "append_eos": True, "attention": "causal"}),
        ("gemma3_text", {"pooling": "mean", "append_eos": True}),
        ("bert", {"pooling": "cls"}),
    ],
)
def test_block_gives_the_vectors(tmp_path: Path, family: str, settings: dict[str, object]) -> None:
    check_block(tiny_encoder(tmp_path / "base", family, PREFIXED, **settings), tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
@pytest.mark.parametrize(("family", "append_eos"), [("llama", False), ("llama", True), ("bert", False)])
def test_block_leaves_the_prompt_out(tmp_path: Path, family: str, append_eos: bool, pooling: str) -> None:
    settings = {"pool_instruction": False, "append_eos": append_eos, "pooling": pooling}
    encoder = tiny_encoder(tmp_path / "base", family, OUTSIDE, **settings)
    names = check_block(encoder, tmp_path)
    bare = names["encode"](TEXTS).numpy()
    assert not np.allclose(bare, names["encode"](TEXTS, "A text:").numpy(), atol=1e-4)  # the premise


@pytest.mark.parametrize("normalize", [False, True])
def test_block_with_dense(tmp_path: Path, normalize: bool) -> None:
    plain = tiny_encoder(tmp_path / "base")
    dense = nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 16, bias=False), nn.Identity())
    spec = replace(plain.spec, normalize=normalize)
    names = check_block(Encoder(plain.backbone, plain.tokenizer, spec, dense), tmp_path)
    lengths = names["documents"].norm(dim=-1)
    assert names["documents"].shape == (2, 16)
    assert np.allclose(lengths, 1, atol=1e-5) is normalize
