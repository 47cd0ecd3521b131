"""How the vectors of a batch lie on the sphere: figures that no term takes part in.

A queries, C candidates, N texts of one side, M different texts of a sample, D dims.
"""

import torch
from torch import Tensor

from embedtrain.batch import Gathered, unit

SAMPLE = 1024
"""Most texts a side that uniformity and effective rank are taken over."""


def sample_documents(g: Gathered) -> Tensor:
    """Unit vectors of at most SAMPLE different documents of the whole batch, (M, D)."""
    return different_texts(g.candidates_CD, g.document_key_C, g.owner_C)


def sample_queries(g: Gathered) -> Tensor:
    """Unit vectors of at most SAMPLE different queries of the whole batch, (M, D)."""
    return different_texts(g.queries_AD, g.query_key_A, g.query_index_A)


def different_texts(vectors_ND: Tensor, key_N: Tensor, row_N: Tensor) -> Tensor:
    """The SAMPLE smallest keys' unit vectors in float64, of each text the one whose row comes first, (M, D).

    Keys are hashes, so the smallest are a random sample, and the same on any number of processes.
    """
    order_N = torch.argsort(row_N, stable=True)
    order_N = order_N[torch.argsort(key_N[order_N], stable=True)]
    sorted_N = key_N[order_N]
    first_N = torch.ones_like(sorted_N, dtype=torch.bool)
    first_N[1:] = sorted_N[1:] != sorted_N[:-1]
    return unit(vectors_ND[order_N[first_N][:SAMPLE]].double())


def uniformity(x_MD: Tensor) -> Tensor:
    """log of the mean of exp(-2 d^2) over all pairs of rows, d their distance; needs two rows at least.

    0 where all vectors are equal, about -4 where they lie evenly in many dims. Wang & Isola (2020),
    "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere".
    """
    return torch.pdist(x_MD).square().mul(-2).exp().mean().log()


def effective_rank(x_MD: Tensor) -> Tensor:
    """exp of the entropy of the singular values over their sum: how many dims the vectors really use.

    Between 1 and the smaller of M and D. Roy & Vetterli (2007), "The effective rank: a measure of effective
    dimensionality".
    """
    values = torch.linalg.svdvals(x_MD)
    return torch.special.entr(values / values.sum()).sum().exp()
