"""Soft labels against sentence-transformers' losses, on a real tiny model."""

from functools import partial
from typing import Any

import torch
from contrastive import mean_count, tiny_encoder
from loss_laws import assert_parity, features, gathered_columns, token_columns, wrap
from sentence_transformers.sentence_transformer.losses import (
    DistillKLDivLoss,
    MarginMSELoss,
    MatryoshkaLoss,
)
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.objective import Objective
from embedtrain.config.terms import DistillKL, MarginMSE, Matryoshka
from embedtrain.loss.objective import build_objective

KL, MSE = partial(DistillKL, kind="distill_kl"), partial(MarginMSE, kind="margin_mse")


def parity_case() -> tuple[Any, Any, Tensor, Gathered]:
    """Encoder, its columns, teacher scores (rows, candidates), and the batch; 3 negatives a row."""
    encoder = tiny_encoder("lora", dtype=torch.float32)
    columns = token_columns(encoder, 5)
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    g = gathered_columns(encoder, columns, teacher_scores={"scores": scores.T.flatten().double()})
    return encoder, columns, scores, g


def test_parity_with_distill_kl_div_loss() -> None:
    """Theirs is multiplied by the student's temperature squared, so the weight of ours is that square."""
    encoder, columns, scores, g = parity_case()
    loss = DistillKLDivLoss(
        wrap(encoder), similarity_fct=pairwise_cos_sim, student_temperature=0.05, teacher_temperature=0.5
    )
    theirs = loss(features(columns), scores)
    term = KL(student_temperature=0.05, teacher_temperature=0.5, weight=0.05**2)
    ours, _ = build_objective(Objective(terms=(term,)))(g, mean_count, {})
    assert_parity(encoder, ours, theirs)


def test_parity_with_margin_mse_loss() -> None:
    encoder, columns, scores, g = parity_case()
    theirs = MarginMSELoss(wrap(encoder), similarity_fct=pairwise_cos_sim)(features(columns), scores)
    ours, _ = build_objective(Objective(terms=(MSE(),)))(g, mean_count, {})
    assert_parity(encoder, ours, theirs)


def test_parity_with_matryoshka_loss() -> None:
    """Around DistillKLDivLoss, with weights that do not add up to 1."""
    encoder, columns, scores, g = parity_case()
    inner = DistillKLDivLoss(wrap(encoder), similarity_fct=pairwise_cos_sim, temperature=0.1)
    loss = MatryoshkaLoss(inner.model, inner, matryoshka_dims=[32, 16, 8], matryoshka_weights=[1, 0.3, 0.2])
    theirs = loss(features(columns), scores)
    term = KL(student_temperature=0.1, teacher_temperature=0.1, weight=0.1**2)
    view = Matryoshka(dims=(32, 16, 8), weights=(1.0, 0.3, 0.2))
    ours, _ = build_objective(Objective(terms=(term,), matryoshka=view))(g, mean_count, {})
    assert encoder.dim == 32
    assert_parity(encoder, ours, theirs)
