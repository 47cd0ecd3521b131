"""Adapter, merged checkpoint and export of one encoder are one model, each proved bidirectional on load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import DOCUMENTS, PREFIXED, QUERIES, tiny_encoder
from ingredients import save_full
from safetensors import safe_open
from test_proof import shield_later_keys
from tiny_models import DECODERS

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig
from embedtrain.model import load
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.layout import layers_of
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.st import open_sentence_transformer

LAST_LAYER = 2
ONE_LIMIT = PREFIXED.model_copy(update={"max_query_tokens": 20})  # a folder has one for both sides


def three_kinds(encoder: Encoder, place: Path) -> dict[str, Path]:
    """The encoder on disk as an adapter, as a checkpoint with all weights, and as an export."""
    adapter = save_encoder(encoder, place / "adapter")
    full = save_full(adapter, place / "full")
    export_encoder(open_encoder(adapter), place / "export")
    return {"adapter": adapter, "full": full, "export": place / "export"}


def tensor_names(folder: Path, file: str) -> list[str]:
    with safe_open(folder / file, framework="pt") as opened:
        return list(opened.keys())


@pytest.mark.parametrize("family", DECODERS)
def test_they_give_the_same_vectors(tmp_path: Path, family: str) -> None:
    encoder = tiny_encoder(tmp_path / "base", family, ONE_LIMIT)
    paths = three_kinds(encoder, tmp_path)
    assert all(".lora_" in name for name in tensor_names(paths["adapter"], "adapter.safetensors"))
    for kind in ("full", "export"):
        assert not any("lora" in name for name in tensor_names(paths[kind], "model.safetensors"))
    untuned = load_encoder(Base(model=str(tmp_path / "base")), EncoderConfig(), ONE_LIMIT)
    for side, texts in (("query", QUERIES), ("document", DOCUMENTS)):
        expected = encoder.encode(texts, side)
        assert np.abs(untuned.encode(texts, side) - expected).max() > 1e-2  # the adapter does something
        for kind, path in paths.items():
            assert np.abs(open_encoder(path).encode(texts, side) - expected).max() < 1e-5, kind
        users = open_sentence_transformer(paths["export"]).encode(texts, side=side)
        assert np.abs(users - expected).max() < 1e-5


def shielding(read: Callable[..., Any]) -> Callable[..., Any]:
    """A reader of backbones, one layer of which keeps its first tokens from seeing later ones."""

    def read_and_shield(*args: Any) -> Any:
        backbone = read(*args)
        shield_later_keys(layers_of(backbone)[LAST_LAYER], "always")
        return backbone

    return read_and_shield


def test_each_is_proved_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = three_kinds(tiny_encoder(tmp_path / "base"), tmp_path)
    for path in paths.values():
        assert open_encoder(path).spec.attention == "bidirectional"
    monkeypatch.setattr(load, "read_backbone", shielding(load.read_backbone))
    for path in paths.values():
        with pytest.raises(UserError, match=rf"layer {LAST_LAYER} of 3 \(\w+\) is not bidirectional"):
            open_encoder(path)
