"""What tools/gradient_parity.py and tests of gradients go through: objectives, rows, a tiny encoder.

Rows are ragged: 1 or 2 positives, 0 to 5 negatives, some of them other rows' positives, so that masks reach
across processes. Every term stands alone and in one objective with others.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from embedtrain.batch import ContrastiveBatch, Gathered
from embedtrain.collate import Collation, TeacherLookup, collate
from embedtrain.config.objective import Objective
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.tuning import Lora
from embedtrain.data.rows import Row, text_key
from embedtrain.dist import average_gradients, mean_over_processes
from embedtrain.loss.learned import initial_parameters
from embedtrain.loss.objective import ObjectiveFunction
from embedtrain.mixture import share
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora, tune_all
from embedtrain.sharding import whole_tensors
from embedtrain.text import source_text
from embedtrain.train.step import Gather, gather_batch, train_step

Tuning = Literal["lora", "full"]
Gradients = dict[str, np.ndarray]
TEXTS = (
    "How do I list the files in a folder?",
    "The ls command lists files and folders, one line each with -l.",
    "Copy a file to another place: cp source target keeps the original.",
    "Déjà vu: Übergröße, naïve café, 日本語 text, and some numbers like 3.14159 or 2,718.",
    "A decoder becomes an encoder when every token may look at all the others.",
    "Remove a folder and everything below it with care, for there is no way back.",
)
WORDS = " ".join(TEXTS).split()
TEACHER_DIM = 24
MASKS = [
    {"kind": "same_text"},
    {"kind": "same_label"},
    {"kind": "above_margin", "margin": 0.3},
    {"kind": "above_fraction", "fraction": 1.4, "judge": "teacher"},
    {"kind": "teacher_relevant", "threshold": 0.5},
]
LEARNED = {"initial": 0.1, "minimum": 0.02, "maximum": 0.5}
PAIRS = {"kind": "pair", "count": 2}
TERMS: dict[str, dict[str, object]] = {
    "infonce": {"kind": "infonce", "temperature": 0.1},
    "learned temperature": {"kind": "infonce", "temperature": LEARNED},
    "own negatives": {
        "kind": "infonce", "temperature": 0.1, "in_batch_positives": False, "in_batch_negatives": False,
    },
    "all blocks": {
        "kind": "infonce", "temperature": LEARNED, "masks": MASKS,
        "query_query": True, "document_document": True, "document_query": True,
    },
    "both directions": {"kind": "infonce", "temperature": LEARNED, "masks": MASKS[:3], "symmetric": True},
    "focal": {"kind": "infonce", "temperature": 0.1, "focal": {"gamma": 0.5}, "hardness": 5.0},
    "focal with gradient": {
        "kind": "infonce", "temperature": LEARNED,
        "focal": {"gamma": 2.0, "detach": False, "normalize": True},
    },
    "own mixing": {
        "kind": "infonce", "temperature": LEARNED, "masks": MASKS[:2],
        "mixing": [PAIRS, {"kind": "list"}, PAIRS | {"parents": "hardest", "num_parents": 4}],
    },
    "shared mixing": {
        "kind": "infonce", "temperature": 0.1,
        "mixing": [PAIRS | {"shared": True}, {"kind": "list", "shared": True, "detach": True}],
    },
    "sigmoid": {"kind": "sigmoid", "masks": MASKS[:3]},
    "distill_kl": {"kind": "distill_kl", "student_temperature": LEARNED},
    "distill_ce": {
        "kind": "distill_ce", "student_temperature": 0.1, "teacher": "vectors",
        "teacher_normalization": "z_score",
    },
    "margin_mse": {"kind": "margin_mse", "teacher_normalization": "min_max"},
    "cosent": {"kind": "cosent"},
    "projected": {"kind": "embed_distill", "projection": True, "distance": "squared_l2", "normalize": False},
    "embed_distill": {"kind": "embed_distill", "matryoshka": {"dims": [TEACHER_DIM, 8]}, "queries": False},
    "spread": {"kind": "spread"},
}  # fmt: skip
MATRYOSHKA = {"dims": [32, 8], "weights": [1.0, 0.3]}
TOGETHER = (
    "all blocks", "own mixing", "focal with gradient", "sigmoid", "distill_kl", "distill_ce", "margin_mse",
    "cosent", "projected", "spread",
)  # fmt: skip


def objective(*names: str, **settings: object) -> Objective:
    """The objective of the terms of these names, the second and further ones at lower weights."""
    terms = [TERMS[name] | {"weight": 1 / (place + 1)} for place, name in enumerate(names)]
    return Objective.model_validate({"terms": terms} | settings)


OBJECTIVES = {name: objective(name) for name in TERMS} | {
    "everything": objective(*TOGETHER, matryoshka=MATRYOSHKA),
}


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


def rich_rows(count: int = 7) -> list[Row]:
    """Ragged rows with labels, grades and teacher scores, all missing on the first rows.

    The last row's negatives hold the first row's positive, and rows far apart share labels: masks reach
    across processes.
    """
    rng = np.random.default_rng(3)
    rows = []
    for i, row in enumerate(ragged_rows(count)):
        row = replace(row, label=("red", "green", None)[i % 3])
        rows.append(row if i < 3 else scored(row, float(i % 3), rng))
    last = rows[-1]
    scores = None if last.negative_scores is None else (0.1, *last.negative_scores)
    rows[-1] = replace(last, negatives=(rows[0].positives[0], *last.negatives), negative_scores=scores)
    return rows


def scored(row: Row, grade: float, rng: np.random.Generator) -> Row:
    """The row with a grade and random teacher scores, the positives' the higher ones."""
    positive = tuple(rng.uniform(0.5, 1, len(row.positives)).tolist())
    negative = tuple(rng.uniform(0, 1, len(row.negatives)).tolist())
    return replace(row, positive_scores=positive, negative_scores=negative, score=grade)


def teach(
    texts: Sequence[str], side: Literal["query", "document"], instructions: Sequence[str] = ()
) -> np.ndarray:
    """Vectors that depend on the text and the side alone."""
    seeds = [abs(text_key(f"{side} {text}")) for text in texts]
    drawn = [np.random.default_rng(seed).normal(size=TEACHER_DIM) for seed in seeds]
    return np.array(drawn, dtype=np.float32).reshape(len(texts), TEACHER_DIM)


def tiny_encoder(
    folder: str, tuning: Tuning, *, dropout: float = 0.0, dtype: torch.dtype = torch.float64
) -> Encoder:
    """The saved model as an encoder in training."""
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
            if not bool(parameter.abs().min() > 0):
                raise ValueError(f"{name} has zeros; A would get no gradient from them")


def exact_norms(encoder: Encoder) -> None:
    """Norms that stay in float64: transformers' round to float32 on the way, whatever the weights."""
    backbone = encoder.backbone
    norms = [(name, module) for name, module in backbone.named_modules() if name.endswith("norm")]
    if not norms:
        raise ValueError("the backbone has no module whose name ends in norm")
    for name, module in norms:
        exact = nn.RMSNorm(module.weight.shape[0], eps=module.variance_epsilon)
        exact.weight = module.weight
        backbone.set_submodule(name, exact)


def add_learned(encoder: Encoder, settings: Objective, teacher: TeacherLookup | None) -> None:
    """What the objective learns, as a training starts it, each number moved a little from there."""
    teacher_dim = None if teacher is None else teacher([], "query", []).shape[1]
    raw = initial_parameters(settings, encoder.dim, teacher_dim, seed=5)
    dtype = next(encoder.parameters()).dtype
    encoder.learned = nn.ParameterDict({name: (x + 0.1).to(dtype) for name, x in raw.items()})


def make_batch(
    encoder: Encoder, rows: list[Row], rank: int = 0, world: int = 1, teacher: TeacherLookup | None = None
) -> ContrastiveBatch:
    """A process's share of the rows, all stored negatives kept but at most 3 a row."""
    how = Collation(
        name="faq",
        rows=rows,
        text=source_text(TextFormat(query="question: {text}", max_document_tokens=64)),
        tokenizer=encoder.tokenizer,
        pool_instruction=True,
        num_negatives=3,
        seed=7,
        teacher=teacher,
    )
    part = share(rows, rank, world)
    indices = range(part.start, part.stop)
    return collate(rows[part], indices, indices, 4, how)


def own_slot(batch: ContrastiveBatch, queries_AD: Tensor, candidates_CD: Tensor) -> Gathered:
    """The common wrong gather: all queries and candidates, but gradient for this process's alone."""
    right = gather_batch(batch, queries_AD, candidates_CD)
    own_A = torch.isin(right.query_index_A, batch.query_index_B)
    own_C = torch.isin(right.owner_C, batch.query_index_B)
    queries_AD = torch.where(own_A[:, None], right.queries_AD, right.queries_AD.detach())
    candidates_CD = torch.where(own_C[:, None], right.candidates_CD, right.candidates_CD.detach())
    return replace(right, queries_AD=queries_AD, candidates_CD=candidates_CD)


def step_gradients(
    encoder: Encoder,
    batch: ContrastiveBatch,
    objective: ObjectiveFunction,
    *,
    chunk_tokens: int,
    keep_tokens: int = 0,
    gather: Gather | None = None,
) -> tuple[float, Gradients]:
    """Loss and gradients of the global batch, averaged over processes; sharded ones on the first alone."""
    encoder.zero_grad()
    torch.manual_seed(13)
    figures = train_step(
        encoder, batch, objective, chunk_tokens=chunk_tokens, keep_tokens=keep_tokens, gather=gather
    )
    average_gradients(p for _, p in encoder.trainable())
    found = whole_tensors({name: p.grad for name, p in encoder.trainable() if p.grad is not None})
    gradients = {name: gradient.numpy().copy() for name, gradient in found.items()}
    return float(mean_over_processes(figures["loss"])), gradients


def relative_error(found: Gradients, expected: Gradients) -> float:
    """Norm of the difference over the norm, over all parameters; no parameter's gradient may be zero."""
    if found.keys() != expected.keys() or not expected:
        raise ValueError(f"gradients of {len(found)} parameters against {len(expected)}")
    for name, gradient in expected.items():
        if not np.abs(gradient).max() > 0:
            raise ValueError(f"{name} has no gradient, so there is nothing to compare")
    difference = sum(float(np.square(found[n] - expected[n], dtype=np.float64).sum()) for n in expected)
    norm = sum(float(np.square(g, dtype=np.float64).sum()) for g in expected.values())
    return float(np.sqrt(difference / norm))
