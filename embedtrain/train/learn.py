"""What a distil stage's step does with its texts: each vector is compared with its teacher's.

Dimensions: N local texts, K dims of the teacher's vectors.
"""

import torch
from torch import Tensor

from embedtrain.batch import TokenBatch
from embedtrain.config.distilling import Distil
from embedtrain.dist import current
from embedtrain.loss.embed_distill import distances
from embedtrain.model.encoder import Encoder
from embedtrain.model.packed import copied
from embedtrain.places import at
from embedtrain.train.budget import Budget
from embedtrain.train.step import exact_dtype


def learn(encoder: Encoder, tokens: TokenBatch, targets_NK: Tensor, stage: Distil, budget: Budget) -> Tensor:
    """Add this process's gradient of its texts to the parameters, chunk by chunk; its loss.

    Averaged over processes, loss and gradient are those of the global batch.
    """
    at("encode")
    mean_count, device = stage.batch_size / current().world, encoder.device
    total = torch.zeros((), dtype=exact_dtype(device), device=device)
    with budget.guard():
        for rows, part in tokens.chunks(budget.chunk_tokens, padded=encoder.padded is not None):
            wanted_NK = targets_NK[copied(rows, device)]
            summed = distances(encoder(part), wanted_NK, stage.distance, encoder.spec.normalize).sum()
            (summed / mean_count).backward()  # type: ignore[no-untyped-call]
            total += summed.detach()
    return total / mean_count
