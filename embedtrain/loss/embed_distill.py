"""Vector distillation: each vector learns the teacher's vector of the same text.

A all queries, C candidates of all processes, N local texts, D dims, K the teacher's, or without a projection
the view's.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from embedtrain.batch import Gathered, unit
from embedtrain.config.errors import UserError
from embedtrain.config.terms import EmbedDistill
from embedtrain.loss.blocks import local_rows
from embedtrain.loss.learned import Learned


def embed_distill(g: Gathered, settings: EmbedDistill, learned: Learned) -> tuple[Tensor, Tensor]:
    """Sum over local texts of the distance of each vector to the teacher's, and the number of texts.

    Unit: text, of the local queries, their positives and their hard negatives, each on its switch. With
    `projection` a vector is W x + b, x raw; a view of d dims takes W's first d columns. Without it a view of
    fewer dims than the model's learns the teacher's vector cut to the same. LEAF, arXiv:2509.12539 (squared
    L2); jina-embeddings-v5, arXiv:2602.15547 (projection); EmbeddingGemma, arXiv:2509.20354 (hard negatives).
    Raises UserError for other dims, and where the batch has no teacher vectors.
    """
    y_NK, target_NK = vectors_and_targets(g, settings, learned)
    if settings.normalize or settings.distance == "cosine":
        y_NK, target_NK = unit(y_NK), unit(target_NK)
    total = DISTANCES[settings.distance](y_NK, target_NK).sum()
    return total, total.new_full((), len(y_NK))


def vectors_and_targets(g: Gathered, settings: EmbedDistill, learned: Learned) -> tuple[Tensor, Tensor]:
    """The local texts' raw vectors, projected where asked for, and their teacher's, both (N, K)."""
    if g.teacher_vectors is None:
        raise UserError(f"source '{g.source}', term {settings.kind}: the batch has no teacher vectors")
    queries_N, documents_N = local_texts(g, settings)
    y_NK = torch.cat([g.queries_AD[queries_N], g.candidates_CD[documents_N]])
    y_NK = y_NK if y_NK.dtype == torch.float64 else y_NK.float()
    if settings.projection:
        weight_KD, bias_K = learned["projection_weight"], learned["projection_bias"]
        y_NK = F.linear(y_NK, weight_KD[:, : g.dim], bias_K)
    teacher = g.teacher_vectors
    target_NK = torch.cat([teacher.queries_NK[queries_N], teacher.documents_CK[documents_N]]).to(y_NK.dtype)
    if g.cut and not settings.projection:
        target_NK = target_NK[:, : g.dim]
    _check_dims(g, settings, y_NK.shape[1], target_NK.shape[1])
    return y_NK, target_NK


def local_texts(g: Gathered, settings: EmbedDistill) -> tuple[Tensor, Tensor]:
    """Positions of the local queries among A and of their own documents among C, of what is switched on."""
    queries_N = g.local_B if settings.queries else g.local_B[:0]
    wanted_C = torch.where(g.is_positive_C, settings.positives, settings.negatives)
    return queries_N, (wanted_C & (local_rows(g)[g.owner_position_C] >= 0)).nonzero().flatten()


def _check_dims(g: Gathered, settings: EmbedDistill, dims: int, teacher_dims: int) -> None:
    if dims != teacher_dims:
        one, advice = (
            ("the projection makes", f"project to {teacher_dims} dims, with one teacher for all sources")
            if settings.projection
            else ("the model's have", f"set projection: true, or take a teacher of {dims} dims")
        )
        raise UserError(
            f"source '{g.source}', term {settings.kind}: the teacher's vectors have {teacher_dims} dims and "
            f"{one} {dims}; {advice}"
        )


def one_minus_cosine(y_NK: Tensor, target_NK: Tensor) -> Tensor:
    """1 - cosine, of vectors of length 1."""
    return 1 - (y_NK * target_NK).sum(dim=1)


def squared_l2(y_NK: Tensor, target_NK: Tensor) -> Tensor:
    """|y - t|^2."""
    return (y_NK - target_NK).square().sum(dim=1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": one_minus_cosine,
    "squared_l2": squared_l2,
}


def distances(vectors_NK: Tensor, targets_NK: Tensor, distance: str, normalize: bool) -> Tensor:
    """The distance of each vector to its teacher's (N), of unit vectors for a cosine or where `normalize`."""
    y_NK = vectors_NK if vectors_NK.dtype == torch.float64 else vectors_NK.float()
    targets_NK = targets_NK.to(y_NK)
    if normalize or distance == "cosine":
        y_NK, targets_NK = unit(y_NK), unit(targets_NK)
    return DISTANCES[distance](y_NK, targets_NK)
