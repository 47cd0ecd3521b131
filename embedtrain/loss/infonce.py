"""InfoNCE: each positive against all negatives that are allowed and not hidden.

B local queries, C candidates of all processes, P pairs of a query and one of its positives.
"""

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.objective import InfoNCE
from embedtrain.loss.blocks import own_positives, possible_negatives, query_document
from embedtrain.loss.masks import same_text


def infonce(g: Gathered, settings: InfoNCE) -> tuple[Tensor, Tensor]:
    """Sum over local queries of -log p(positive), and the number of queries that have a negative.

    Unit: query. With several positives a query counts their mean; they never stand against each other.
    A query without any negative has the loss 0 and is not counted.
    """
    scores_BC = query_document(g) / settings.temperature
    positive_BC, negative_BC = own_positives(g), visible_negatives(g, settings)
    negatives_B = torch.logsumexp(scores_BC.masked_fill(~negative_BC, -torch.inf), dim=1)
    rows_P, columns_P = positive_BC.nonzero(as_tuple=True)
    excess_P = negatives_B[rows_P] - scores_BC[rows_P, columns_P]
    losses_P = torch.logaddexp(torch.zeros_like(excess_P), excess_P)
    share_P = 1 / positive_BC.sum(dim=1)[rows_P].to(losses_P.dtype)
    return (losses_P * share_P).sum(), negative_BC.any(dim=1).sum()


def visible_negatives(g: Gathered, settings: InfoNCE) -> Tensor:
    """True where the candidate stands in the query's denominator as a negative, (B, C)."""
    negative_BC = possible_negatives(
        g,
        own_negatives=settings.own_negatives,
        in_batch_positives=settings.in_batch_positives,
        in_batch_negatives=settings.in_batch_negatives,
    )
    return negative_BC & ~same_text(g) if settings.mask_same_text else negative_BC
