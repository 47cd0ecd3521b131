"""Negatives mixed from real ones, anew in every step (MoCHi; KaLM-Embedding-V2).

Parents are chosen after the masks, so that what is hidden is not mixed in either. All draws are made for all
queries in the order of their global indices and then taken at the local ones: processes, chunks and dims
cannot change them.

A all queries, B local queries, C candidates, D dims, H mixed negatives of a query (or of all, where shared),
M parents of a query, P pairs of a local query and one of its positives.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from embedtrain.batch import Gathered, unit
from embedtrain.config.denominator import AnyMixing, ListMixing, PairMixing
from embedtrain.config.terms import InfoNCE
from embedtrain.loss.blocks import Block, Pairs, local_rows, one_pair, own_documents, pairs, rank_within
from embedtrain.loss.masks import visible, visible_to_queries


@dataclass(frozen=True, slots=True)
class Parents:
    """What is mixed: of `document_BM`, candidates, the first `count_B` of each local query."""

    document_BM: Tensor
    count_B: Tensor

    @property
    def enough_B1(self) -> Tensor:
        """True where there are two to mix."""
        return self.count_B[:, None] >= 2


def own_mixed(
    g: Gathered, p: Pairs, settings: InfoNCE, block: Block, visible_PC: Tensor, teacher: Gathered | None
) -> tuple[Tensor, Tensor]:
    """Cosines of the pairs' queries with their own mixed negatives, and which of those exist, (P, H).

    `block` is the queries against the documents, and `visible_PC` what the masks left of it.
    """
    cosines, exists = [], []
    for number, mixing in enumerate(settings.mixing):
        if not mixing.shared:
            parents = (
                own_parents(g, p, settings, teacher)
                if mixing.parents == "own_negatives"
                else hardest_parents(g, p, block, visible_PC, mixing.num_parents)
            )
            mixed_BHD = mix(g, parents, mixing, number)
            cosines.append(torch.einsum("pd,phd->ph", g.queries_AD[p.query_P], mixed_BHD[p.row_P]))
            exists.append(parents.enough_B1.expand(mixed_BHD.shape[:2])[p.row_P])
    return torch.cat(cosines, dim=1), torch.cat(exists, dim=1)


def shared_mixed(g: Gathered, settings: InfoNCE, teacher: Gathered | None) -> Tensor:
    """The mixed negatives of all queries that stand against every query, (H, D); often none.

    Every process makes all of them from the gathered vectors.
    """
    everyone = replace(g, local_B=torch.arange(len(g.query_index_A), device=g.local_B.device))
    made = [g.candidates_CD[:0]]
    for number, mixing in enumerate(settings.mixing):
        if mixing.shared:
            parents = own_parents(everyone, pairs(everyone), settings, teacher)
            enough = parents.enough_B1[:, 0].nonzero().flatten()
            made.append(mix(everyone, parents, mixing, number)[enough].flatten(0, 1))
    return torch.cat(made)


@torch.no_grad()
def own_parents(g: Gathered, p: Pairs, settings: InfoNCE, teacher: Gathered | None) -> Parents:
    """Each local query's own hard negatives that all its pairs see."""
    row_C = local_rows(g)[g.owner_position_C]
    document_N = (~g.is_positive_C & (row_C >= 0)).nonzero().flatten()
    row_N = row_C[document_N]
    rank_N = rank_within(row_N, len(g.local_B))
    most = int(rank_N.max()) + 1 if len(rank_N) else 1
    document_BM = torch.zeros(len(g.local_B), most, dtype=torch.int64, device=row_N.device)
    exists_BM = torch.zeros_like(document_BM, dtype=torch.bool)
    document_BM[row_N, rank_N] = document_N
    exists_BM[row_N, rank_N] = torch.full_like(row_N, settings.own_negatives, dtype=torch.bool)
    block = own_documents(g, p, document_BM[p.row_P], exists_BM[p.row_P])
    seen_PM = visible(g, p, block, settings.masks, teacher)
    seen_BM = visible_to_queries(seen_PM, p, len(g.local_B))
    seen_first_BM = torch.argsort((~seen_BM).int(), dim=1, stable=True)
    return Parents(document_BM.gather(1, seen_first_BM), seen_BM.sum(dim=1))


def hardest_parents(g: Gathered, p: Pairs, block: Block, visible_PC: Tensor, count: int) -> Parents:
    """The `count` documents of the denominator that the model scores highest, the hardest first."""
    seen_BC = visible_to_queries(visible_PC, p, len(g.local_B))
    score_BC = block.scores_PX.detach()[one_pair(g, p)].masked_fill(~seen_BC, -torch.inf)
    document_BM = score_BC.topk(min(count, score_BC.shape[1]), dim=1).indices
    return Parents(document_BM, seen_BC.sum(dim=1).clamp(max=count))


def mix(g: Gathered, parents: Parents, mixing: AnyMixing, number: int) -> Tensor:
    """Unit vectors of each local query's mixed negatives, (B, H, D); `number` is the mixing's in the term.

    Those of queries without two parents are there too, and mean nothing.
    """
    mixed_BHD = unit(MIXINGS[mixing.kind](g, parents, mixing, number))
    return mixed_BHD.detach() if mixing.detach else mixed_BHD


def mix_pairs(g: Gathered, parents: Parents, mixing: PairMixing, number: int) -> Tensor:
    """lambda n_j + (1 - lambda) n_k of two different parents, `count` times, (B, H, D)."""
    first_BH, second_BH, share_BH = draw(g, mixing, number)
    first_BH = (first_BH * parents.count_B[:, None]).long()
    second_BH = (second_BH * (parents.count_B[:, None] - 1)).long()
    second_BH += second_BH >= first_BH
    last = parents.document_BM.shape[1] - 1
    chosen = (parents.document_BM.gather(1, place.clamp(0, last)) for place in (first_BH, second_BH))
    n_j, n_k = (g.candidates_CD[document_BH] for document_BH in chosen)
    share_BH1 = share_BH.to(n_j.dtype)[:, :, None]
    return share_BH1 * n_j + (1 - share_BH1) * n_k


def mix_lists(g: Gathered, parents: Parents, mixing: ListMixing, number: int) -> Tensor:
    """Sum of softmax(s(q, n_m) / temperature) n_m over all parents, (B, 1, D); draws nothing.

    The shares have a gradient too: they depend on the query and on the parents.
    """
    n_BMD = g.candidates_CD[parents.document_BM]
    score_BM = torch.einsum("bd,bmd->bm", g.queries_BD, n_BMD) / mixing.temperature
    place_M = torch.arange(score_BM.shape[1], device=score_BM.device)
    absent_BM = place_M >= parents.count_B[:, None]
    share_BM = score_BM.masked_fill(absent_BM, torch.finfo(score_BM.dtype).min).softmax(dim=1)
    return torch.einsum("bm,bmd->bd", share_BM, n_BMD)[:, None]


MIXINGS: dict[str, Callable[..., Tensor]] = {"pair": mix_pairs, "list": mix_lists}


def draw(g: Gathered, mixing: PairMixing, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each local query and mixed negative: two uniform numbers that choose, and lambda, (B, H)."""
    rng = np.random.default_rng([g.draw_seed, number])
    size = (len(g.query_index_A), mixing.count)
    drawn = np.stack([rng.random(size), rng.random(size), rng.beta(mixing.alpha, mixing.beta, size)])
    order_A = torch.argsort(torch.argsort(g.query_index_A))
    first_BH, second_BH, share_BH = torch.from_numpy(drawn).to(g.local_B.device)[:, order_A[g.local_B]]
    return first_BH, second_BH, share_BH
