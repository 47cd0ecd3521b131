"""Sigmoid loss: every pair of a query and a document is judged for itself (SigLIP, Zhai et al. 2023).

A all queries, B local queries, C candidates, P pairs of a local query and one of its positives.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.terms import Sigmoid
from embedtrain.loss.blocks import at_columns, one_pair, pairs, query_document
from embedtrain.loss.learned import Learned, value_of
from embedtrain.loss.masks import guide, visible, visible_to_queries
from embedtrain.loss.stream import like, stream


def sigmoid(g: Gathered, settings: Sigmoid, learned: Learned) -> tuple[Tensor, Tensor]:
    """Sum over local queries of -log sigmoid(y (s / temperature + bias)), and the number of queries.

    Unit: query. y is 1 for each of its positives and -1 for each negative that all its pairs see; a query
    without negatives has the loss 0 and is not counted. Many scores are streamed. Raises UserError where a
    mask's teacher is not there.
    """
    g = g.normalize()
    temperature = like(g.queries_AD, value_of(settings.temperature, learned, "temperature"))
    bias = like(g.queries_AD, value_of(settings.bias, learned, "bias"))
    direct = partial(direct_sigmoid, settings=settings, teacher=guide(g, settings.masks))
    return stream(direct, g, len(g.owner_C), temperature, bias)


def direct_sigmoid(
    g: Gathered, temperature: Tensor, bias: Tensor, *, settings: Sigmoid, teacher: Gathered | None
) -> tuple[Tensor, Tensor]:
    """The term with all scores at once; `g` holds unit vectors."""
    p = pairs(g)
    block = query_document(g, p, settings)
    seen_BC = visible_to_queries(visible(g, p, block, settings.masks, teacher), p, len(g.local_B))
    counted_B = seen_BC.any(dim=1)
    logit_BC = block.scores_PX[one_pair(g, p)] / temperature + bias
    positive_P = F.logsigmoid(at_columns(block.scores_PX, p.positive_P) / temperature + bias)
    total = -F.logsigmoid(-logit_BC).where(seen_BC, 0.0).sum() - (positive_P * counted_B[p.row_P]).sum()
    return total, counted_B.sum().to(total.dtype)
