"""A linear layer with bias from a student's vectors to its teacher's dims: a Dense module of its own.

Dimensions: N texts, D dims of the student's vectors, K of the teacher's.
"""

import math

import torch
from torch import Tensor, nn

from embedtrain.model.encoder import Encoder

RIDGE = 1e-3  # of the mean variance of a dim


def draw_projection(dim: int, teacher_dim: int, seed: int) -> nn.Linear:
    """torch's own start of a linear layer, drawn on the CPU from the seed: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(dim, teacher_dim)
    with torch.no_grad():
        for parameter in (linear.weight, linear.bias):
            parameter.uniform_(-1 / math.sqrt(dim), 1 / math.sqrt(dim), generator=generator)
    return linear


def fit_projection(student_ND: Tensor, teacher_NK: Tensor) -> nn.Linear:
    """The layer that brings the student's vectors nearest to the teacher's: ridge least squares in float64.

    The bias is not shrunk, and the ridge is a share of the dims' mean variance, so that the units of the
    vectors do not matter.
    """
    x_ND, y_NK = student_ND.double(), teacher_NK.double()
    mean_D, mean_K = x_ND.mean(dim=0), y_NK.mean(dim=0)
    x_ND, y_NK = x_ND - mean_D, y_NK - mean_K
    products_DD = x_ND.T @ x_ND
    products_DD.diagonal().add_(RIDGE * products_DD.diagonal().mean())
    weight_KD = torch.linalg.solve(products_DD, x_ND.T @ y_NK).T
    linear = nn.Linear(len(mean_D), len(mean_K))
    with torch.no_grad():
        linear.weight.copy_(weight_KD)
        linear.bias.copy_(mean_K - weight_KD @ mean_D)
    return linear


def add_projection(encoder: Encoder, linear: nn.Linear) -> None:
    """Put the layer behind the encoder's vectors; it trains, whatever else does."""
    before = list(encoder.dense.children()) if encoder.dense is not None else []
    encoder.dense = nn.Sequential(*before, linear.to(encoder.device), nn.Identity())
