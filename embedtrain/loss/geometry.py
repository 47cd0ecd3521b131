"""How the vectors of a batch lie on the sphere: figures that no term takes part in.

A queries, C candidates, N texts of one side, M different texts of a sample, D dims.
"""

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.loss.spread import first_of_each

SAMPLE = 1024
"""Most texts a side that uniformity and effective rank are taken over."""


def sample_queries(g: Gathered) -> Tensor:
    """Vectors of at most SAMPLE different queries of the whole batch, (M, D)."""
    return g.queries_AD[first_of_each(g.query_key_A, g.query_index_A)[:SAMPLE]]


def sample_documents(g: Gathered) -> Tensor:
    """Vectors of at most SAMPLE different documents of the whole batch, (M, D).

    Those of the smallest keys: hashes, so as good as drawn, and the same on any number of processes.
    """
    return g.candidates_CD[first_of_each(g.document_key_C, g.owner_C)[:SAMPLE]]


def uniformity(x_MD: Tensor) -> Tensor:
    """log of the mean of exp(-2 d^2) over all pairs of unit vectors, d their distance.

    0 where all vectors are equal, about -4 where they lie evenly in many dims. Wang & Isola (2020),
    "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere".
    """
    num_pairs = len(x_MD) * (len(x_MD) - 1) / 2
    return ((4 * (x_MD @ x_MD.T - 1)).exp().triu(diagonal=1).sum() / num_pairs).log()


def effective_rank(x_MD: Tensor) -> Tensor:
    """exp of the entropy of the singular values over their sum: how many dims the vectors really use.

    Between 1 and the smaller of M and D. Roy & Vetterli (2007), "The effective rank: a measure of effective
    dimensionality".
    """
    values = torch.linalg.svdvals(x_MD)
    return torch.special.entr(values / values.sum()).sum().exp()
