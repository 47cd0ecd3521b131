"""Tiny encoders in training, and the gradient of a step on them: tools/parity_cases.py with a saved model."""

import atexit
import tempfile
from functools import cache
from pathlib import Path
from shutil import rmtree

import torch
from tiny_models import save_tiny
from torch import Tensor

from embedtrain.batch import ContrastiveBatch
from embedtrain.collate import TeacherLookup
from embedtrain.config.objective import Objective
from embedtrain.config.terms import InfoNCE, Matryoshka
from embedtrain.data.rows import Row
from embedtrain.dist import current
from embedtrain.loss.objective import ObjectiveFunction, build_objective
from embedtrain.model.encoder import Encoder
from embedtrain.train.step import Gather
from tools import parity_cases
from tools.parity_cases import (
    Gradients,
    Tuning,
    add_learned,
    make_batch,
    make_trainable,
    ragged_rows,
    relative_error,
    words,
)

__all__ = [
    "Gradients",
    "Tuning",
    "add_learned",
    "make_batch",
    "make_trainable",
    "ragged_rows",
    "relative_error",
    "words",
]
OBJECTIVE = Objective(
    terms=(InfoNCE(kind="infonce", temperature=0.1),),
    matryoshka=Matryoshka(dims=(32, 8), weights=(1.0, 0.3)),
)


@cache
def tiny_folder(attention_dropout: float = 0.0) -> str:
    """A saved tiny model, made by the first process alone: transformers saves nothing on the others."""
    folder = tempfile.mkdtemp()
    atexit.register(rmtree, folder)
    save_tiny("llama", Path(folder), seed=3, attention_dropout=attention_dropout)
    return folder


def tiny_encoder(
    tuning: Tuning, *, dropout: float = 0.0, dtype: torch.dtype = torch.float64, folder: str | None = None
) -> Encoder:
    """A tiny encoder in training."""
    folder = folder or tiny_folder(dropout if tuning == "full" else 0.0)
    return parity_cases.tiny_encoder(folder, tuning, dropout=dropout, dtype=dtype)


def step_gradients(
    encoder: Encoder,
    batch: ContrastiveBatch,
    *,
    chunk_tokens: int,
    keep_tokens: int = 0,
    objective: ObjectiveFunction | None = None,
    gather: Gather | None = None,
) -> tuple[float, Gradients]:
    """Loss and gradients of the global batch, averaged over processes."""
    return parity_cases.step_gradients(
        encoder,
        batch,
        objective or build_objective(OBJECTIVE),
        chunk_tokens=chunk_tokens,
        keep_tokens=keep_tokens,
        gather=gather,
    )


def share_gradients(
    folder: str,
    tuning: Tuning,
    dtype: torch.dtype,
    chunk_tokens: int,
    rows: list[Row],
    settings: Objective = OBJECTIVE,
    gather: Gather | None = None,
    teacher: TeacherLookup | None = None,
) -> tuple[float, Gradients]:
    """The same from this process's share of the rows; run on any number of processes."""
    here = current()
    encoder = shared_encoder(tuning, dtype, folder)
    add_learned(encoder, settings, teacher)
    batch = make_batch(encoder, rows, here.rank, here.world, teacher)
    return step_gradients(
        encoder, batch, chunk_tokens=chunk_tokens, objective=build_objective(settings), gather=gather
    )


@cache
def shared_encoder(tuning: Tuning, dtype: torch.dtype, folder: str) -> Encoder:
    """A tiny encoder whose weights nobody changes."""
    return tiny_encoder(tuning, dtype=dtype, folder=folder)


def bound(dtype: torch.dtype) -> float:
    """What two exact ways to the same gradient may differ by."""
    return {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]


def mean_count(counts: Tensor) -> Tensor:
    """The mean over one process."""
    return counts
