"""Which columns of a block are hidden from a pair. Own positives are none of them: no block allows those.

A all queries, B local queries, P pairs of a local query and one of its positives, R positives of a query, X
columns of a block.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import (
    AboveFraction,
    AboveMargin,
    Mask,
    SameLabel,
    SameText,
    TeacherRelevant,
)
from embedtrain.config.errors import UserError
from embedtrain.loss.blocks import Block, Pairs, positive_cosines, rank_within

ROUNDING = 64
"""Machine epsilons that two cosines may differ by and still be equal."""


def guide(g: Gathered, masks: Sequence[Mask]) -> Gathered | None:
    """The batch with the teacher's unit vectors where a mask asks for them; UserError if it has none."""
    asking = [m for m in masks if isinstance(m, AboveMargin | AboveFraction) and m.judge == "teacher"]
    if not asking:
        return None
    if g.teacher_vectors is None:
        raise UserError(
            f"source '{g.source}', mask {asking[0].kind}: judge is the teacher, and the batch has no teacher "
            "vectors; give the stage a teacher, or set judge: student"
        )
    return g.as_teacher().normalize()


def visible(g: Gathered, p: Pairs, block: Block, masks: Sequence[Mask], teacher: Gathered | None) -> Tensor:
    """True where the column is a negative of the pair: allowed, and hidden by no mask, (P, X)."""
    visible_PX = block.allowed_PX
    for mask in masks:
        visible_PX = visible_PX & ~hidden(g, p, block, mask, teacher)
    return visible_PX


def hidden(g: Gathered, p: Pairs, block: Block, mask: Mask, teacher: Gathered | None) -> Tensor:
    """True where the mask hides the column from the pair, allowed or not, (P, X) or broadcast to it."""
    return MASKS[mask.kind](mask, g, p, block, teacher)


def visible_to_queries(visible_PX: Tensor, p: Pairs, num_rows: int) -> Tensor:
    """True where every pair of the local query sees the column, (B, X)."""
    unseen_BX = torch.zeros(num_rows, visible_PX.shape[1], dtype=torch.int32, device=visible_PX.device)
    return unseen_BX.index_add_(0, p.row_P, (~visible_PX).int()) == 0


def same_text(mask: SameText, g: Gathered, p: Pairs, block: Block, teacher: Gathered | None) -> Tensor:
    """The column's text, by its key, is the query's or that of one of its positives."""
    hidden_PX = g.query_key_A[p.query_P, None] == block.key_X
    for key_P in positive_keys(g, p).unbind(dim=1):
        hidden_PX |= key_P[:, None] == block.key_X
    return hidden_PX


def positive_keys(g: Gathered, p: Pairs) -> Tensor:
    """The texts of all positives of each pair's query, its own text where it has fewer, (P, R)."""
    rank_P = rank_within(p.query_P, len(g.query_index_A))
    most = int(rank_P.max()) + 1 if len(p) else 0
    key_AR = g.query_key_A[:, None].repeat(1, most)
    key_AR[p.query_P, rank_P] = g.document_key_C[p.positive_P]
    return key_AR[p.query_P]


def same_label(mask: SameLabel, g: Gathered, p: Pairs, block: Block, teacher: Gathered | None) -> Tensor:
    """The column has the query's class label."""
    label_P1 = g.label_A[p.query_P, None]
    return (label_P1 == block.label_X) & (label_P1 != 0)


def above_margin(mask: AboveMargin, g: Gathered, p: Pairs, block: Block, teacher: Gathered | None) -> Tensor:
    """The judge's cosine is above that of the pair + margin."""
    positive_P, score_PX = _judged(mask, g, p, block, teacher)
    return _above(score_PX, positive_P + mask.margin)


def above_fraction(
    mask: AboveFraction, g: Gathered, p: Pairs, block: Block, teacher: Gathered | None
) -> Tensor:
    """The judge's cosine is above that of the pair, s, lowered by (1 - fraction) |s|."""
    positive_P, score_PX = _judged(mask, g, p, block, teacher)
    return _above(score_PX, positive_P - (1 - mask.fraction) * positive_P.abs())


def _above(score_PX: Tensor, bound_P: Tensor) -> Tensor:
    """Above by more than rounding: what is equal to the bound is not hidden, on any number of processes."""
    return score_PX > (bound_P + ROUNDING * torch.finfo(bound_P.dtype).eps)[:, None]


def _judged(
    mask: AboveMargin | AboveFraction, g: Gathered, p: Pairs, block: Block, teacher: Gathered | None
) -> tuple[Tensor, Tensor]:
    """The judge's cosines of the pairs, (P), and of the block, (P, X), without gradient."""
    with torch.no_grad():
        if mask.judge == "student" or teacher is None:
            return positive_cosines(g, p), block.scores_PX.detach()
        return positive_cosines(teacher, p), block.cosines(teacher)


def teacher_relevant(
    mask: TeacherRelevant, g: Gathered, p: Pairs, block: Block, teacher: Gathered | None
) -> Tensor:
    """The teacher scores the own negative at the threshold or above; a missing score hides nothing."""
    if mask.teacher not in g.teacher_scores:
        raise UserError(
            f"source '{g.source}', mask teacher_relevant: no row of the batch has the teacher scores "
            f"'{mask.teacher}'; it has {', '.join(sorted(g.teacher_scores)) or 'none'}"
        )
    if block.document_X is None:
        return torch.zeros_like(block.own_PX)
    return block.own_PX & (g.teacher_scores[mask.teacher][block.document_X] >= mask.threshold)


MASKS: dict[str, Callable[..., Tensor]] = {
    "same_text": same_text,
    "same_label": same_label,
    "above_margin": above_margin,
    "above_fraction": above_fraction,
    "teacher_relevant": teacher_relevant,
}
