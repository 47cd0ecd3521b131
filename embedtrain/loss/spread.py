"""The spread-out regulariser: vectors of different texts want to be orthogonal.

A all queries, C candidates of all processes, N texts of one side, D dims.
"""

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.terms import Spread
from embedtrain.loss.learned import Learned

DIRECT = 4096  # up to so many texts all pairs are compared, beyond it their (D, D) second moment is taken


def spread(g: Gathered, settings: Spread, learned: Learned) -> tuple[Tensor, Tensor]:
    """Mean of squared cosines over all pairs of different texts of each side, the sides added, and 1.

    Unit: the whole batch, on every process; 0 and 0 where no side has two texts. A text that comes several
    times counts once, as the row of the least index has it. Second moment of Zhang et al., Learning
    Spread-out Local Feature Descriptors, arXiv:1708.06320; sides added as EmbeddingGemma, arXiv:2509.20354.
    """
    g = g.normalize()
    queries_N = first_of_each(g.query_key_A, g.query_index_A)
    documents_N = first_of_each(g.document_key_C, g.owner_C)
    sides = (
        g.queries_AD[queries_N if settings.queries else queries_N[:0]],
        g.candidates_CD[documents_N if settings.documents else documents_N[:0]],
    )
    counts = any(len(side_ND) > 1 for side_ND in sides)
    total = torch.stack([second_moment(side_ND) for side_ND in sides]).sum()
    return total, total.new_full((), int(counts))


def first_of_each(key_N: Tensor, index_N: Tensor) -> Tensor:
    """Positions of one text of each key, that of the least index, in order of keys."""
    order_N = torch.argsort(index_N, stable=True)
    order_N = order_N[torch.argsort(key_N[order_N], stable=True)]
    key_N = key_N[order_N]
    new_N = torch.ones_like(key_N, dtype=torch.bool)
    new_N[1:] = key_N[1:] != key_N[:-1]
    return order_N[new_N]


def second_moment(x_ND: Tensor) -> Tensor:
    """Mean of (x_i · x_j)^2 over i != j; 0 for less than two vectors.

    The sum over all i and j is the squared norm of the (D, D) matrix of second moments: of many texts it
    needs far less memory than all pairs, of few it loses digits.
    """
    size = len(x_ND)
    if size <= DIRECT:
        total = 2 * (x_ND @ x_ND.T).triu(diagonal=1).square().sum()
    else:
        total = (x_ND.T @ x_ND).square().sum() - x_ND.square().sum(dim=1).square().sum()
    return total / max(1, size * (size - 1))
