"""Models on disk of every kind that a soup takes, for the tests of soups."""

import warnings
from pathlib import Path

import peft
import torch
from exports import tiny_encoder
from transformers import AutoModel

from embedtrain.config.tuning import Lora
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import open_encoder
from embedtrain.model.lora import add_lora, fold_lora, lora_layers

SHAPES = (
    Lora(rank=2, alpha=4),
    Lora(rank=3, alpha=1, targets=("q_proj", "down_proj")),
    Lora(rank=4, alpha=5, rslora=True),
)
"""Ranks, alphas, scales and layers, all different."""


def adapted_encoder(
    folder: Path, lora: Lora, seed: int, family: str = "llama", **settings: object
) -> Encoder:
    """An encoder with an adapter that changes its vectors, on the one base in the folder."""
    encoder = tiny_encoder(folder / "base", family, **settings)
    with torch.no_grad():
        for _, layer in lora_layers(encoder.backbone):
            layer.lora_B["default"].weight.zero_()
    fold_lora(encoder)  # of zeros: the base as it was
    encoder.folded = False
    add_lora(encoder, lora, seed=seed)
    torch.manual_seed(seed)
    for _, layer in lora_layers(encoder.backbone):
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.2)
    return encoder


def save_adapters(folder: Path, shapes: tuple[Lora, ...] = SHAPES) -> list[Path]:
    """A checkpoint with an adapter alone for each shape."""
    return [
        save_encoder(adapted_encoder(folder, lora, seed), folder / f"adapter{seed}")
        for seed, lora in enumerate(shapes)
    ]


def save_full(adapter: Path, folder: Path) -> Path:
    """The same encoder as a checkpoint that holds all weights."""
    encoder = open_encoder(adapter)
    fold_lora(encoder)
    return save_encoder(encoder, folder)


def save_peft(folder: Path, base: Path, **settings: object) -> Path:
    """A PEFT folder on a base that `save_tiny` wrote, with patterns of ranks and alphas."""
    model = AutoModel.from_pretrained(base)
    torch.manual_seed(4)
    patterns = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 7}}
    config = peft.LoraConfig(
        **{"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False} | patterns | settings
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
