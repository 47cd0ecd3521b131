"""Tiny encoders, rows with ragged groups, and the gradient of a step on them."""

import atexit
import tempfile
from functools import cache
from pathlib import Path
from shutil import rmtree
from typing import Literal

import numpy as np
import torch
from tiny_models import TEXTS, save_tiny
from torch import Tensor, nn

from embedtrain.batch import ContrastiveBatch
from embedtrain.collate import Collation, TeacherLookup, collate
from embedtrain.config.objective import Objective
from embedtrain.config.schema import Base, EncoderConfig, Source, TextFormat
from embedtrain.config.stages import Lora
from embedtrain.config.terms import InfoNCE, Matryoshka
from embedtrain.data.rows import Row
from embedtrain.dist import average_gradients, current, mean_over_processes
from embedtrain.loss.learned import initial_parameters
from embedtrain.loss.objective import ObjectiveFunction, build_objective
from embedtrain.mixture import share
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, tune_all
from embedtrain.train.step import Gather, train_step

Tuning = Literal["lora", "full"]
Gradients = dict[str, np.ndarray]
WORDS = " ".join(TEXTS).split()
OBJECTIVE = Objective(
    terms=(InfoNCE(kind="infonce", temperature=0.1),),
    matryoshka=Matryoshka(dims=(32, 8), weights=(1.0, 0.3)),
)


def words(seed: int, count: int) -> str:
    """`count` words drawn from the tiny texts."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def ragged_rows(count: int = 7) -> list[Row]:
    """Rows with 1 or 2 positives and 0 to 4 negatives of 1 to 12 words; some are other rows' positives."""
    rows: list[Row] = []
    for i in range(count):
        positives = tuple(words(100 + 10 * i + j, 2 + 3 * i % 11) for j in range(1 + i % 2))
        negatives = tuple(words(500 + 10 * i + j, 1 + (i * j) % 12) for j in range((i * 3 + 2) % 4))
        borrowed = rows[-1].positives[:1] if i % 3 == 2 else ()
        rows.append(Row(words(i, 1 + i), positives, negatives + borrowed))
    return rows


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
    encoder = load_encoder(Base(model=folder), EncoderConfig(), TextFormat())
    if dtype == torch.float64:
        exact_norms(encoder)
    make_trainable(encoder, tuning, dropout)
    return encoder.to(dtype).train()


def make_trainable(encoder: Encoder, tuning: Tuning, dropout: float = 0.0) -> None:
    """With LoRA, B is random and not zero, or A would get no gradient at all."""
    if tuning == "full":
        tune_all(encoder)
        return
    add_lora(encoder, Lora(rank=4, alpha=8, dropout=dropout), seed=5)
    generator = torch.Generator().manual_seed(11)
    for name, parameter in encoder.trainable():
        if "lora_B" in name:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
            assert bool(parameter.abs().min() > 0)


def exact_norms(encoder: Encoder) -> None:
    """Norms that stay in float64: transformers' round to float32 on the way, whatever the weights."""
    backbone = encoder.backbone
    norms = [(name, module) for name, module in backbone.named_modules() if name.endswith("norm")]
    assert norms
    for name, module in norms:
        exact = nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon)
        exact.weight = module.weight
        backbone.set_submodule(name, exact)


def add_learned(encoder: Encoder, settings: Objective, teacher: TeacherLookup | None) -> None:
    """What the objective learns, as a training starts it, each number moved a little from there."""
    teacher_dim = None if teacher is None else teacher([], "query").shape[1]
    raw = initial_parameters(settings, encoder.dim, teacher_dim, seed=5)
    dtype = next(encoder.parameters()).dtype
    encoder.learned = nn.ParameterDict({name: (x + 0.1).to(dtype) for name, x in raw.items()})


def make_batch(
    encoder: Encoder, rows: list[Row], rank: int = 0, world: int = 1, teacher: TeacherLookup | None = None
) -> ContrastiveBatch:
    """A process's share of the rows, all stored negatives kept but at most 3 a row."""
    how = Collation(
        name="faq",
        source=Source(rows="rows.parquet"),
        fmt=TextFormat(query="question: {text}"),
        tokenizer=encoder.tokenizer,
        pool_instruction=True,
        max_query_tokens=64,
        max_document_tokens=64,
        num_negatives=3,
        seed=7,
        teacher=teacher,
    )
    part = share(rows, rank, world)
    indices = range(part.start, part.stop)
    return collate(rows[part], indices, indices, 4, how)


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
    encoder.zero_grad()
    torch.manual_seed(13)
    figures = train_step(
        encoder,
        batch,
        objective or build_objective(OBJECTIVE),
        chunk_tokens=chunk_tokens,
        keep_tokens=keep_tokens,
        gather=gather,
    )
    average_gradients(p for _, p in encoder.trainable())
    gradients = {name: p.grad.numpy().copy() for name, p in encoder.trainable() if p.grad is not None}
    return float(mean_over_processes(figures["loss"])), gradients


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


def relative_error(found: Gradients, expected: Gradients) -> float:
    """Norm of the difference over the norm, over all parameters; no parameter's gradient may be zero."""
    assert found.keys() == expected.keys()
    assert expected
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 0, name
    difference = sum(float(np.square(found[n] - expected[n], dtype=np.float64).sum()) for n in expected)
    norm = sum(float(np.square(g, dtype=np.float64).sum()) for g in expected.values())
    return float(np.sqrt(difference / norm))


def bound(dtype: torch.dtype) -> float:
    """What two exact ways to the same gradient may differ by."""
    return {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]


def mean_count(counts: Tensor) -> Tensor:
    """The mean over one process."""
    return counts
