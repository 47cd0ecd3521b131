"""Trainings with a row that spoils its batch: a token that stands in that row alone has no numbers."""

import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import torch
from contrastive import tiny_folder
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from training import curve_of, parameters, sources, tiny_stage, train_tiny

from embedtrain.artifacts import read_json
from embedtrain.data.rows import Row
from embedtrain.train.log import Figures, read_curve

BAD = ("faq", 5)
"""The row that spoils its batch."""


def poison(folder: Path) -> str:
    """A copy of the tiny model in which a token of the bad row alone is NaN."""
    model = Path(shutil.copytree(tiny_folder(), folder / "poisoned"))
    tensors = load_file(model / "model.safetensors")
    tensors["embed_tokens.weight"][lonely_token()] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return str(model)


@cache
def lonely_token() -> int:
    """A token of the bad row's query or positives that no other row has."""
    tokenizer = Tokenizer.from_file(str(Path(tiny_folder()) / "tokenizer.json"))
    tokens = {
        (name, number): tokens_of(row, tokenizer)
        for name, rows in sources().items()
        for number, row in enumerate(rows)
    }
    counts = Counter(token for found in tokens.values() for token in found)
    row = sources()[BAD[0]][BAD[1]]
    own = tokens_of(Row(row.query, row.positives), tokenizer)
    return min(token for token in own if counts[token] == 1)


def tokens_of(row: Row, tokenizer: Tokenizer) -> set[int]:
    """Tokens of all texts of a row."""
    return {i for text in (row.query, *row.positives, *row.negatives) for i in tokenizer.encode(text).ids}


def optimizer_steps(folder: Path) -> set[int]:
    """Steps that the optimizer has taken of each parameter, in the newest checkpoint."""
    newest = max((folder / "checkpoints").glob("step-*"))
    tensors = load_file(newest / "optimizer.safetensors")
    return {int(tensor) for name, tensor in tensors.items() if name.endswith(".step")}


def state_of(folder: Path) -> dict[str, object]:
    """What the newest checkpoint says besides tensors."""
    found: dict[str, object] = read_json(max((folder / "checkpoints").glob("step-*")) / "state.json")
    return found


def shared_skips(model: str, folder: str) -> tuple[list[Figures], bool]:
    """The curve of a training on the bad row, on any number of processes, and whether the model is whole."""
    _, encoder = train_tiny(model, Path(folder), tiny_stage(steps=8, lora={"rank": 4, "alpha": 8}))
    whole = all(torch.isfinite(torch.from_numpy(x)).all() for x in parameters(encoder).values())
    return curve_of(Path(folder)), whole


def skipped_lines(folder: Path) -> list[Figures]:
    """The file of the skipped steps."""
    return read_curve(folder / "skipped.jsonl")
