"""Which vectors are compared: scores, and which of them may stand in a denominator.

B local queries, C candidates of all processes, D dims, N rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.batch import Gathered


def unit(x_ND: Tensor) -> Tensor:
    """Vectors of length 1, in float32 at least."""
    return F.normalize(x_ND if x_ND.dtype == torch.float64 else x_ND.float(), dim=-1)


def query_document(g: Gathered) -> Tensor:
    """Cosines of local queries and all candidates, (B, C)."""
    return unit(g.queries_BD) @ unit(g.candidates_CD).T


def own_candidates(g: Gathered) -> Tensor:
    """True where the candidate stands in the query's own row, (B, C)."""
    return g.query_index_B[:, None] == g.owner_C[None, :]


def own_positives(g: Gathered) -> Tensor:
    """True where the candidate is one of the query's positives, (B, C)."""
    return own_candidates(g) & g.is_positive_C


def possible_negatives(
    g: Gathered, *, own_negatives: bool, in_batch_positives: bool, in_batch_negatives: bool
) -> Tensor:
    """True where the switches let the candidate stand against the query, (B, C).

    Three kinds: the row's own hard negatives, other rows' positives, other rows' hard negatives.
    """
    own_BC, positive_C = own_candidates(g), g.is_positive_C
    allowed_BC = torch.zeros_like(own_BC)
    if own_negatives:
        allowed_BC |= own_BC & ~positive_C
    if in_batch_positives:
        allowed_BC |= ~own_BC & positive_C
    if in_batch_negatives:
        allowed_BC |= ~own_BC & ~positive_C
    return allowed_BC
