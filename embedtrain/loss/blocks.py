"""Which vectors are compared: blocks of cosines, and which of their columns may be negatives.

Every block has a row for each pair of a local query and one of its positives, so that blocks can stand side
by side in one denominator.

A all queries, B local queries, C candidates, D dims, P pairs of a local query and one of its positives, X the
columns of a block: all A queries, all C candidates, or M candidates of the pair's own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.terms import InfoNCE, Sigmoid


@dataclass(frozen=True, slots=True)
class Pairs:
    """Local queries with each of their positives.

    `query_P` is the query's place among all A, `row_P` among the local ones; `positive_P` the candidate's.
    """

    query_P: Tensor
    positive_P: Tensor
    row_P: Tensor

    def __len__(self) -> int:
        return self.query_P.shape[0]


def pairs(g: Gathered) -> Pairs:
    """All pairs of the local queries, in the candidates' order."""
    query_C = g.owner_position_C
    row_C = local_rows(g)[query_C]
    positive_P = (g.is_positive_C & (row_C >= 0)).nonzero().flatten()
    return Pairs(query_C[positive_P], positive_P, row_C[positive_P])


def local_rows(g: Gathered) -> Tensor:
    """Where each query stands among the local ones, -1 for the others, (A)."""
    row_A = torch.full_like(g.query_index_A, -1)
    row_A[g.local_B] = torch.arange(len(g.local_B), device=row_A.device)
    return row_A


def one_pair(g: Gathered, p: Pairs) -> Tensor:
    """A pair of each local query, among the pairs, (B)."""
    pair_B = torch.zeros_like(g.local_B)
    pair_B[p.row_P] = torch.arange(len(p), device=pair_B.device)
    return pair_B


def positive_cosines(g: Gathered, p: Pairs) -> Tensor:
    """Cosine of each pair, (P)."""
    return (g.queries_AD[p.query_P] * g.candidates_CD[p.positive_P]).sum(dim=1)


def at_columns(scores_PX: Tensor, column_P: Tensor) -> Tensor:
    """One score of each pair, (P): where gradients are taken, far smaller than gathered vectors'."""
    return scores_PX.gather(1, column_P[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class Block:
    """Cosines of pairs with columns, and what is known of the columns.

    `cosines` gives (P, X) for any unit vectors of the batch, the teacher's too; `scores_PX` are the model's.
    `own_PX` is True where the column stands in the query's own row, `allowed_PX` where the switches let it be
    a negative: never a positive of the query. `key_X` and `label_X` are the columns' texts and class labels,
    `document_X` their places among the candidates, or None where they are queries. These three may be (P, X).
    """

    name: str
    cosines: Callable[[Gathered], Tensor]
    scores_PX: Tensor
    own_PX: Tensor
    allowed_PX: Tensor
    key_X: Tensor
    label_X: Tensor
    document_X: Tensor | None


def blocks(g: Gathered, p: Pairs, settings: InfoNCE) -> list[Block]:
    """The blocks that the settings switch on, the query against the documents first."""
    optional = (
        (settings.query_query, query_query),
        (settings.document_document, document_document),
        (settings.document_query, document_query),
    )
    return [query_document(g, p, settings), *(block(g, p) for is_on, block in optional if is_on)]


def query_document(g: Gathered, p: Pairs, settings: InfoNCE | Sigmoid) -> Block:
    """The query against all documents; three switches let in negatives, by row and kind."""
    own_PC = g.owner_position_C == p.query_P[:, None]
    positive_C = g.is_positive_C
    other_C = positive_C & settings.in_batch_positives | ~positive_C & settings.in_batch_negatives
    allowed_PC = torch.where(own_PC, ~positive_C & settings.own_negatives, other_C)

    def cosines(g: Gathered) -> Tensor:
        return g.queries_AD[p.query_P] @ g.candidates_CD.T

    return _documents("query_document", cosines, g, own_PC, allowed_PC)


def document_document(g: Gathered, p: Pairs) -> Block:
    """The positive against all documents of other rows."""

    def cosines(g: Gathered) -> Tensor:
        return g.candidates_CD[p.positive_P] @ g.candidates_CD.T

    own_PC = g.owner_position_C == p.query_P[:, None]
    return _documents("document_document", cosines, g, own_PC, ~own_PC)


def query_query(g: Gathered, p: Pairs) -> Block:
    """The query against all other queries."""
    return _queries("query_query", lambda g: g.queries_AD[p.query_P] @ g.queries_AD.T, g, p)


def document_query(g: Gathered, p: Pairs) -> Block:
    """The positive against all other queries."""
    return _queries("document_query", lambda g: g.candidates_CD[p.positive_P] @ g.queries_AD.T, g, p)


def own_documents(g: Gathered, p: Pairs, document_PM: Tensor, allowed_PM: Tensor) -> Block:
    """The query against `document_PM`, documents of its own row alone."""

    def cosines(g: Gathered) -> Tensor:
        return torch.einsum("pd,pmd->pm", g.queries_AD[p.query_P], g.candidates_CD[document_PM])

    return Block(
        name="own_documents",
        cosines=cosines,
        scores_PX=cosines(g),
        own_PX=torch.ones_like(allowed_PM),
        allowed_PX=allowed_PM,
        key_X=g.document_key_C[document_PM],
        label_X=g.label_C[document_PM],
        document_X=document_PM,
    )


def rank_within(group_N: Tensor, num_groups: int) -> Tensor:
    """How many earlier elements share each element's group: 0, 1, 2 ... within a group, (N)."""
    order_N = torch.argsort(group_N, stable=True)
    size_G = group_N.new_zeros(num_groups).index_add_(0, group_N, torch.ones_like(group_N))
    start_G = size_G.cumsum(dim=0) - size_G
    place_N = torch.arange(len(group_N), device=group_N.device)
    rank_N = torch.empty_like(group_N)
    rank_N[order_N] = place_N - start_G[group_N[order_N]]
    return rank_N


def _documents(
    name: str, cosines: Callable[[Gathered], Tensor], g: Gathered, own_PC: Tensor, allowed_PC: Tensor
) -> Block:
    """A block whose columns are all candidates."""
    return Block(
        name=name,
        cosines=cosines,
        scores_PX=cosines(g),
        own_PX=own_PC,
        allowed_PX=allowed_PC,
        key_X=g.document_key_C,
        label_X=g.label_C,
        document_X=torch.arange(len(g.owner_C), device=g.owner_C.device),
    )


def _queries(name: str, cosines: Callable[[Gathered], Tensor], g: Gathered, p: Pairs) -> Block:
    """A block whose columns are all queries; all but the pair's own are allowed."""
    own_PA = torch.arange(len(g.query_index_A), device=p.query_P.device) == p.query_P[:, None]
    return Block(
        name=name,
        cosines=cosines,
        scores_PX=cosines(g),
        own_PX=own_PA,
        allowed_PX=~own_PA,
        key_X=g.query_key_A,
        label_X=g.label_A,
        document_X=None,
    )
