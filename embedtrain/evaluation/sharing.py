"""Texts encoded by all processes of a stage: each encodes some blocks, and every process gets all vectors.

Blocks depend on the texts alone, so that the vectors of one process and of many are the same, bit for bit.
Dimensions: T texts, D dims of a vector.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedtrain.config.errors import UserError
from embedtrain.dist import Processes, current, gather_fields

if TYPE_CHECKING:
    from embedtrain.model.st import Embedder, Side

BLOCK = 32  # texts encoded at a time: those of about one length
ALONE = Processes(0, 1)


def encode_blocks(
    embedder: Embedder, texts: Sequence[str], side: Side, normalize: bool, shared: bool
) -> np.ndarray:
    """Vectors of the texts (T, D); where `shared`, every process calls this with the same texts at once.

    A process that fails makes all of them fail, so that none waits for it.
    """
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    processes = current() if shared else ALONE
    own = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
    own = own[processes.rank :: processes.world]
    parts, failure = [np.zeros((0, embedder.dim), np.float32)], None
    try:
        parts += [
            embedder.encode([texts[row] for row in rows], side=side, normalize=normalize) for rows in own
        ]
    except Exception as error:
        failure = error
    stop_together(failure, processes)
    mine = {
        "rows": torch.tensor([row for rows in own for row in rows], dtype=torch.int64),
        "vectors": torch.from_numpy(np.concatenate(parts)),
    }
    (found,) = gather_fields(mine) if processes.world > 1 else [mine]
    return found["vectors"][found["rows"].argsort()].numpy()


def stop_together(failure: Exception | None, processes: Processes) -> None:
    """Raise this process's failure; where another has failed, UserError with what it said."""
    said = "" if failure is None else f"{type(failure).__name__}: {failure}"
    told = gather_json([processes.rank, said]) if processes.world > 1 else []
    if failure is not None:
        raise failure
    for rank, text in told:
        if text:
            raise UserError(f"process {rank} of {processes.world} failed while it encoded texts: {text}")


def gather_json(value: Any) -> list[Any]:
    """A plain value of every process, by rank."""
    line = (json.dumps(value) + "\n").encode()
    (found,) = gather_fields({"json": torch.frombuffer(bytearray(line), dtype=torch.uint8)})
    return [json.loads(text) for text in bytes(found["json"].tolist()).decode().splitlines()]
