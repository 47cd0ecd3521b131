"""InfoNCE: each positive against all negatives that are let in and not hidden.

A all queries, B local queries, C candidates, D dims, H mixed negatives, P pairs of a local query and one of
its positives, X columns of a block.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import Focal
from embedtrain.config.terms import InfoNCE
from embedtrain.loss.blocks import Block, Pairs, at_columns, blocks, document_query, pairs
from embedtrain.loss.learned import Learned, value_of
from embedtrain.loss.masks import guide, visible
from embedtrain.loss.mixing import own_mixed, shared_mixed
from embedtrain.loss.stream import like, stream


def infonce(g: Gathered, settings: InfoNCE, learned: Learned) -> tuple[Tensor, Tensor]:
    """Sum over local queries of the mean over positives of -log p(positive), and the number of queries.

    Unit: query. Pairs that see no negative are left out, and so are queries that have no other. `symmetric`
    takes the mean of both directions, sums and counts. With a normalised focal weight the count is the sum of
    the weights. Many scores are streamed. Raises UserError where a mask's teacher is not there.

    Sources: van den Oord et al. 2018; blocks: Li et al. 2023 (GTE); focal and mixing: KaLM-Embedding-V2;
    hardness: EmbeddingGemma.
    """
    g = g.normalize()
    teacher = guide(g, settings.masks)
    temperature = like(g.queries_AD, value_of(settings.temperature, learned, "temperature"))
    shared_HD = shared_mixed(g, settings, teacher)
    direct = partial(direct_infonce, settings=settings, teacher=teacher)
    return stream(direct, g, width(g, settings) + len(shared_HD), temperature, shared_HD)


def width(g: Gathered, settings: InfoNCE) -> int:
    """About how many scores a local query has with real vectors."""
    num_queries, num_documents = g.queries_AD.shape[0], g.candidates_CD.shape[0]
    columns = num_documents * (1 + settings.document_document)
    columns += num_queries * (settings.query_query + settings.document_query + settings.symmetric)
    return columns * max(1, round(int(g.is_positive_C.sum()) / max(1, num_queries)))


def direct_infonce(
    g: Gathered, temperature: Tensor, shared_HD: Tensor, *, settings: InfoNCE, teacher: Gathered | None
) -> tuple[Tensor, Tensor]:
    """The term with all scores at once; `g` holds unit vectors."""
    p = pairs(g)
    excess = [forward_excess(g, p, settings, teacher, temperature, shared_HD)]
    if settings.symmetric:
        excess.append(backward_excess(g, p, settings, teacher, temperature))
    parts = [torch.stack(sum_over_queries(g, p, excess_P, settings.focal)) for excess_P in excess]
    total, count = torch.stack(parts).mean(dim=0)
    return total, count.detach()


def forward_excess(
    g: Gathered,
    p: Pairs,
    settings: InfoNCE,
    teacher: Gathered | None,
    temperature: Tensor,
    shared_HD: Tensor,
) -> Tensor:
    """log(sum over negatives of exp(logit)) - positive's logit, (P): -log p is softplus of it.

    -inf where the pair sees no negative.
    """
    logits = []
    for block in blocks(g, p, settings):
        visible_PX = visible(g, p, block, settings.masks, teacher)
        logit_PX = block.scores_PX / temperature
        if block.name == "query_document":
            document, visible_PC = block, visible_PX
            if settings.hardness:
                logit_PX = logit_PX + settings.hardness * own_cosines(block)
        logits.append(logit_PX.masked_fill_(~visible_PX, -torch.inf))
    if any(not mixing.shared for mixing in settings.mixing):
        cosine_PH, exists_PH = own_mixed(g, p, settings, document, visible_PC, teacher)
        logits.append((cosine_PH / temperature).masked_fill_(~exists_PH, -torch.inf))
    if len(shared_HD):
        logits.append(g.queries_AD[p.query_P] @ shared_HD.T / temperature)
    return _excess(logits, document.scores_PX, p.positive_P, temperature)


def backward_excess(
    g: Gathered, p: Pairs, settings: InfoNCE, teacher: Gathered | None, temperature: Tensor
) -> Tensor:
    """The same with the positive against the queries, (P)."""
    block = document_query(g, p)
    visible_PA = visible(g, p, block, settings.masks, teacher)
    logit_PA = (block.scores_PX / temperature).masked_fill_(~visible_PA, -torch.inf)
    return _excess([logit_PA], block.scores_PX, p.query_P, temperature)


def _excess(logits: list[Tensor], scores_PX: Tensor, positive_P: Tensor, temperature: Tensor) -> Tensor:
    """The negatives' log-sum-exp less the positive's logit, which stands in the block at `positive_P`."""
    parts_P = [torch.logsumexp(logit_PX, dim=1) for logit_PX in logits]
    logit_P = at_columns(scores_PX, positive_P) / temperature
    return torch.logsumexp(torch.stack(parts_P), dim=0) - logit_P


def own_cosines(block: Block) -> Tensor:
    """Cosines of the row's own documents, 0 for others', without gradient."""
    return block.scores_PX.detach().where(block.own_PX, 0.0)


def sum_over_queries(g: Gathered, p: Pairs, excess_P: Tensor, focal: Focal | None) -> tuple[Tensor, Tensor]:
    """Sum over queries of the mean over pairs of weight x -log p, and what to divide by."""
    sees_P = excess_P.detach() > -torch.inf
    pairs_A = torch.zeros_like(g.query_index_A).index_add_(0, p.query_P, sees_P.long())
    share_P = sees_P.to(excess_P.dtype) / pairs_A[p.query_P].clamp(min=1)
    weight_P = focal_weights(excess_P, focal)
    total = (share_P * weight_P * -F.logsigmoid(-excess_P)).sum()
    if focal is not None and focal.normalize:
        tiny = torch.finfo(weight_P.dtype).tiny  # a weight that underflows still counts its query
        return total, (share_P * weight_P.detach().clamp(min=tiny)).sum()
    return total, (pairs_A > 0).sum().to(total.dtype)


def focal_weights(excess_P: Tensor, focal: Focal | None) -> Tensor:
    """(1 - p)^gamma of each pair, (P); 1 without focal. log(1 - p) is taken from the excess: stable."""
    if focal is None:
        return torch.ones_like(excess_P)
    weight_P = torch.exp(focal.gamma * F.logsigmoid(excess_P))
    return weight_P.detach() if focal.detach else weight_P
