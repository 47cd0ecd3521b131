"""A soup folded back into one adapter: whole where the rank suffices, else the closest, and told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from souped import base_weights, distance, make_three, soup, soup_json, three, weights_of
from tiny_models import TEXTS

from embedtrain.artifacts import read_json
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.load import open_encoder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models in three kinds of folders."""
    return make_three(tmp_path_factory.mktemp("soups"))


def test_folded_back_into_one_adapter(place: Path, tmp_path: Path) -> None:
    """A rank of 2 + 3 + 4 holds the whole soup; both kinds of files give its vectors."""
    soup(*three(place, "lora"), "--out", tmp_path / "whole")
    printed = soup(*three(place, "lora"), "--out", tmp_path / "folded", "--adapter-rank", "9")
    expected = open_encoder(tmp_path / "whole").encode(TEXTS)
    assert np.abs(open_encoder(tmp_path / "folded").encode(TEXTS) - expected).max() < 1e-5
    fold = soup_json(tmp_path / "folded")["fold"]
    assert fold["error"] < 1e-4
    assert fold["left_out"] == []
    assert "folded into an adapter of rank 9" in printed
    assert f"{fold['error']:.2e}" in printed
    for name in ("encoder.json", "adapter.safetensors"):  # PEFT's files alone
        (tmp_path / "folded" / name).unlink()
    peft = open_encoder(tmp_path / "folded")
    assert peft.spec.attention == "bidirectional"
    assert distance(weights_of(tmp_path / "folded"), weights_of(tmp_path / "whole")) < 1e-6


def test_a_small_rank_is_the_closest_and_says_what_it_misses(place: Path, tmp_path: Path) -> None:
    soup(*three(place, "lora"), "--out", tmp_path / "whole")
    soup(*three(place, "lora"), "--out", tmp_path / "folded", "--adapter-rank", "2")
    whole, folded, base = weights_of(tmp_path / "whole"), weights_of(tmp_path / "folded"), base_weights(place)
    fold = soup_json(tmp_path / "folded")["fold"]
    lost = norm = 0.0
    for name, error in fold["layers"].items():
        difference = (whole[name] - base[name]).double()
        missed = (whole[name] - folded[name]).double()
        tail = torch.linalg.svdvals(difference)[2:].norm()
        assert float(missed.norm()) == pytest.approx(float(tail), rel=1e-3)
        assert error == pytest.approx(float(missed.norm() / difference.norm()), abs=1e-4)
        lost, norm = lost + float(missed.norm()) ** 2, norm + float(difference.norm()) ** 2
    assert fold["error"] == pytest.approx((lost / norm) ** 0.5, abs=1e-4)
    assert 0.1 < fold["error"] < 1


def test_exports_fold_into_a_peft_adapter_on_the_base_named(place: Path, tmp_path: Path) -> None:
    exports = three(place, "export")
    soup(*exports, "--out", tmp_path / "whole")
    soup(*exports, "--out", tmp_path / "folded", "--adapter-rank", "9", "--base", place / "base")
    names = {path.name for path in (tmp_path / "folded").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "modules.json", "1_Pooling"} <= names
    assert "model.safetensors" not in names
    assert read_json(tmp_path / "folded" / "adapter_config.json")["lora_alpha"] == 9
    expected = open_encoder(tmp_path / "whole").encode(TEXTS)
    assert np.abs(open_encoder(tmp_path / "folded").encode(TEXTS) - expected).max() < 1e-5


def test_weights_that_no_adapter_holds_are_named(place: Path, tmp_path: Path) -> None:
    changed = open_encoder(place / "full-1")
    with torch.no_grad():
        changed.backbone.get_input_embeddings().weight.add_(0.1)
    save_encoder(changed, tmp_path / "changed")
    arguments = [tmp_path / "changed", place / "full-2", "--adapter-rank", "5", "--base", place / "base"]
    printed = soup(*arguments, "--out", tmp_path / "folded")
    fold = soup_json(tmp_path / "folded")["fold"]
    assert fold["left_out"] == ["embed_tokens.weight"]
    assert "1 tensors that no adapter holds" in printed
    assert fold["error"] > 0.1
