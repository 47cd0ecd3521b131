"""Tiny models to be merged: adapters of any shape on one base, full checkpoints, exports; data to judge."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from exports import PREFIXED
from tiny_models import TEXTS, save_tiny
from typer.testing import CliRunner, Result

from embedtrain.artifacts import read_json
from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig
from embedtrain.config.tuning import Lora
from embedtrain.data.rows import Row, write_rows
from embedtrain.model.checkpoint import all_tensors, save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.lora import add_lora, fold_lora, lora_layers

SHAPES = (
    Lora(rank=2, alpha=4),
    Lora(rank=3, alpha=1.5),
    Lora(rank=4, alpha=6, rslora=True),
)
"""Ranks, alphas and scalings that all differ."""


def lora_checkpoint(
    base: str, place: Path, lora: Lora, seed: int, layers: int | None = None, size: float = 0.2
) -> Path:
    """An adapter checkpoint, its B drawn from the seed."""
    encoder = load_encoder(Base(model=base, keep_first_layers=layers), EncoderConfig(), PREFIXED)
    add_lora(encoder, lora, seed)
    torch.manual_seed(seed)
    for _, layer in lora_layers(encoder.backbone):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=size)
    return save_encoder(encoder, place)


def lora_checkpoints(folder: Path, shapes: Sequence[Lora] = SHAPES) -> list[Path]:
    """A tiny base in `folder/base`, and an adapter of each shape on it."""
    base = folder / "base"
    if not base.exists():
        save_tiny("llama", base)
    return [
        lora_checkpoint(str(base), folder / f"lora-{seed}", shape, seed)
        for seed, shape in enumerate(shapes, 1)
    ]


def full_of(checkpoint: Path, place: Path) -> Path:
    """The adapter merged into all weights."""
    encoder = open_encoder(checkpoint)
    fold_lora(encoder)
    return save_encoder(encoder, place)


def export_of(checkpoint: Path, place: Path) -> Path:
    """Its export."""
    export_encoder(open_encoder(checkpoint), place)
    return place


def weights_of(place: Path) -> dict[str, torch.Tensor]:
    """All merged tensors of a folder."""
    return dict(all_tensors(open_encoder(place)))


def base_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Those of the base."""
    return dict(all_tensors(load_encoder(Base(model=str(folder / "base")), EncoderConfig(), PREFIXED)))


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm, of all tensors together."""
    assert found.keys() == expected.keys()
    missed = sum(float((found[n].double() - expected[n].double()).norm()) ** 2 for n in expected)
    return float((missed / sum(float(t.double().norm()) ** 2 for t in expected.values())) ** 0.5)


def put(encoder: Encoder, tensors: dict[str, torch.Tensor]) -> None:
    """Set weights one by one, by names, on an encoder without adapters."""
    dense = {} if encoder.dense is None else dict(encoder.dense.named_parameters(prefix="dense"))
    parameters = dict(encoder.backbone.named_parameters()) | dense
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def write_held_out(path: Path, count: int = 24) -> Path:
    """Validation data: queries and answers made of the same words, the more the nearer."""
    words = sorted(set(" ".join(TEXTS).split()))
    lines = []
    for number in range(count):
        picked = [words[(7 * number + 3 * k) % len(words)] for k in range(6)]
        lines.append({"query": " ".join(picked[:4]), "pos": [" ".join(picked[2:])]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_examples(path: Path, count: int = 12) -> Path:
    """Rows with negatives."""
    rows = [
        Row(f"question {n} {TEXTS[n % 6][:20]}", (f"answer {n}", f"also {n}"), (f"no {n}", f"nor {n}"))
        for n in range(count)
    ]
    return write_rows(path, rows)


def soup_json(folder: Path) -> dict:
    """What a soup says of itself."""
    return read_json(folder / "soup.json")


def make_three(folder: Path) -> Path:
    """Three adapters of different shapes on one base, each also as a full checkpoint and as an export."""
    for number, path in enumerate(lora_checkpoints(folder), 1):
        full_of(path, folder / f"full-{number}")
        export_of(path, folder / f"export-{number}")
    return folder


def three(place: Path, kind: str) -> list[Path]:
    """Those of one kind."""
    return [place / f"{kind}-{number}" for number in (1, 2, 3)]


def invoke(*arguments: object) -> Result:
    """The command's result; its faults come through."""
    return CliRunner().invoke(app, ["soup", *map(str, arguments)], catch_exceptions=False)


def soup(*arguments: object) -> str:
    """What it prints."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fault(*arguments: object) -> str:
    """What it complains about."""
    with pytest.raises(UserError) as caught:
        invoke(*arguments)
    return str(caught.value)
