"""Graded pairs: a pair of a higher grade wants the higher cosine.

A all queries, C candidates of all processes, D dims, P graded pairs of a query and one of its positives,
N of them below others.
"""

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.terms import CoSENT
from embedtrain.loss.learned import Learned


def cosent(g: Gathered, settings: CoSENT, learned: Learned) -> tuple[Tensor, Tensor]:
    """log(1 + sum of exp((s_j - s_i) / temperature)) over pairs with grade i above grade j, and 1.

    Unit: the whole batch, on every process; 0 and 0 where no two grades differ. Each positive of a query
    makes a pair of the query's grade; queries without a grade make none. Sorted by grade, the sum over the
    higher grades is a running one: P log P. Huang et al., CoSENT, doi:10.1109/TASLP.2024.3402087.
    """
    g = g.normalize()
    owner_C = g.owner_position_C
    grade_C = g.graded_score_A[owner_C].masked_fill(~g.is_positive_C, torch.nan)
    pair_P = (~grade_C.isnan()).nonzero().flatten()
    grade_P, order_P = grade_C[pair_P].sort(stable=True)
    pair_P = pair_P[order_P]
    score_P = (g.queries_AD[owner_C[pair_P]] * g.candidates_CD[pair_P]).sum(dim=1) / settings.temperature
    from_P = torch.logcumsumexp(-score_P.flip(0), dim=0).flip(0)  # log of the sum of exp(-s) from here on
    higher_P = torch.searchsorted(grade_P, grade_P, right=True)
    below_N = (higher_P < len(grade_P)).nonzero().flatten()
    excess = score_P[below_N] + from_P[higher_P[below_N]]
    return torch.cat([excess.new_zeros(1), excess]).logsumexp(dim=0), pair_P.new_full((), len(below_N) > 0)
