"""The command `embedtrain encode`: a text file in, a NumPy file of vectors out."""

import io
from pathlib import Path

import numpy as np

from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.model.load import open_encoder

SIDES = ("query", "document")


def encode_file(model: str, texts: Path, out: Path, side: str, machine: Machine) -> None:
    """Encode every line of `texts` into a unit vector; `out` receives float32 (lines, dims)."""
    if side not in SIDES:
        raise UserError(f"--side {side}: expected query or document")
    if not texts.is_file():
        raise UserError(f"{texts}: no such file")
    try:
        lines = texts.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{texts}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not lines:
        raise UserError(f"{texts}: empty; expected one text a line")
    encoder = open_encoder(model, device=machine.device)
    vectors = encoder.encode(
        lines,
        "query" if side == "query" else "document",
        tokens_per_batch=machine.encode_tokens,
        progress=True,
    )
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    write_atomic(out, buffer.getvalue())
    print(f"{out}: {vectors.shape[0]:,} vectors of {vectors.shape[1]} dims")
