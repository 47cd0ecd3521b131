"""Which candidates are hidden from a query. A mask never hides the query's own positives.

B local queries, C candidates of all processes.
"""

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.loss.blocks import own_positives


def same_text(g: Gathered) -> Tensor:
    """True where the candidate's text is the query's own or that of one of its positives, (B, C).

    Keys are compared, so the match holds across processes and rows.
    """
    positive_BC = own_positives(g)
    hidden_BC = g.query_key_B[:, None] == g.document_key_C[None, :]
    rows_P, columns_P = positive_BC.nonzero(as_tuple=True)
    same_PC = g.document_key_C[columns_P][:, None] == g.document_key_C[None, :]
    count_BC = torch.zeros_like(hidden_BC, dtype=torch.int32).index_add_(0, rows_P, same_PC.int())
    return (hidden_BC | (count_BC > 0)) & ~positive_BC
