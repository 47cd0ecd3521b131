"""Soft labels: the cosines of a row's own candidates learn what a teacher scores them.

A all queries, B local ones, C candidates of all processes, N of them own, D dims; G places, as many as the
largest row has candidates; R rows that count; P pairs of a local query and one of its positives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.errors import UserError
from embedtrain.config.terms import DistillCE, DistillKL, MarginMSE
from embedtrain.loss.learned import Learned, value_of

SAME = 1e-6  # teacher scores whose range is within this share of the largest are one value and its rounding


@dataclass(frozen=True, slots=True)
class Groups:
    """Own candidates of each local query: `place_BG` among all C, `real_BG` False where it is padding."""

    place_BG: Tensor
    real_BG: Tensor


def own_groups(g: Gathered) -> Groups:
    """The local queries' own candidates, in the order of the batch."""
    size, device = len(g.local_B), g.local_B.device
    row_A = torch.full_like(g.query_index_A, -1).scatter_(0, g.local_B, torch.arange(size, device=device))
    row_C = row_A[g.owner_position_C]
    order_C = torch.argsort(row_C, stable=True)
    own_N = order_C[row_C[order_C] >= 0]
    count_B = row_C.new_zeros(size).index_add_(0, row_C[own_N], torch.ones_like(own_N))
    width = max(1, int(count_B.max())) if size else 1
    real_BG = torch.arange(width, device=device) < count_B[:, None]
    place_BG = torch.zeros_like(real_BG, dtype=torch.int64).masked_scatter_(real_BG, own_N)
    return Groups(place_BG, real_BG)


def own_cosines(g: Gathered, groups: Groups) -> Tensor:
    """Cosines of each local query and its own candidates, (B, G); padding is 0 or another row's."""
    return torch.einsum("bd,bgd->bg", g.queries_BD, g.candidates_CD[groups.place_BG])


def own_teacher_scores(g: Gathered, groups: Groups, settings: DistillKL | DistillCE | MarginMSE) -> Tensor:
    """Normalised scores of each local query's own candidates, (B, G) float64, NaN for none."""
    if settings.teacher != "vectors":
        scores_BG = _column(g, settings)[groups.place_BG]
    elif g.teacher_vectors is None:
        raise UserError(f"source '{g.source}', term {settings.kind}: the batch has no teacher vectors")
    else:
        scores_BG = own_cosines(g.as_teacher().normalize(), groups)
    scores_BG = scores_BG.detach().double().masked_fill(~groups.real_BG, torch.nan)
    return NORMALIZATIONS[settings.teacher_normalization](scores_BG)


def _column(g: Gathered, settings: DistillKL | DistillCE | MarginMSE) -> Tensor:
    if settings.teacher not in g.teacher_scores:
        raise UserError(
            f"source '{g.source}', term {settings.kind}: the rows have no teacher scores "
            f"'{settings.teacher}'; found: {', '.join(g.teacher_scores) or 'none'}"
        )
    return g.teacher_scores[settings.teacher]


def as_they_are(scores_BG: Tensor) -> Tensor:
    """The scores themselves."""
    return scores_BG


def min_max(scores_BG: Tensor) -> Tensor:
    """0 for a row's least score, 1 for its largest; 0 for all where they are one."""
    low_B1, high_B1, constant_B1 = _range(scores_BG)
    return (scores_BG - low_B1) / (high_B1 - low_B1).masked_fill(constant_B1, torch.inf)


def z_score(scores_BG: Tensor) -> Tensor:
    """Distance from a row's mean in (population) standard deviations; 0 for all where they are one."""
    _, _, constant_B1 = _range(scores_BG)
    centred_BG = scores_BG - scores_BG.nanmean(dim=1, keepdim=True)
    deviation_B1 = centred_BG.square().nanmean(dim=1, keepdim=True).sqrt()
    return centred_BG / deviation_B1.masked_fill(constant_B1, torch.inf)


def _range(scores_BG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least and largest score of each row, and whether they are the same but for rounding; each (B, 1)."""
    low_B1 = scores_BG.nan_to_num(torch.inf).amin(dim=1, keepdim=True)
    high_B1 = scores_BG.nan_to_num(-torch.inf).amax(dim=1, keepdim=True)
    return low_B1, high_B1, high_B1 - low_B1 <= SAME * torch.maximum(low_B1.abs(), high_B1.abs())


NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": as_they_are,
    "min_max": min_max,
    "z_score": z_score,
}


def log_probabilities(
    g: Gathered, settings: DistillKL | DistillCE, learned: Learned
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-softmax of teacher and student over what the teacher scored, both (R, G), and the number of rows.

    A row counts with two scores at least. What has no score is 0 in both, so that p log p' is 0 there too.
    """
    g = g.normalize()
    groups = own_groups(g)
    teacher_BG = own_teacher_scores(g, groups, settings) / settings.teacher_temperature
    student_BG = own_cosines(g, groups) / value_of(settings.student_temperature, learned, "temperature")
    absent_BG = teacher_BG.isnan()
    row_R = ((~absent_BG).sum(dim=1) >= 2).nonzero().flatten()
    absent_RG = absent_BG[row_R]
    teacher_RG, student_RG = (
        torch.log_softmax(x_BG[row_R].masked_fill(absent_RG, -torch.inf), dim=1).masked_fill(absent_RG, 0)
        for x_BG in (teacher_BG, student_BG)
    )
    return teacher_RG, student_RG, row_R.new_full((), len(row_R))


def distill_kl(g: Gathered, settings: DistillKL, learned: Learned) -> tuple[Tensor, Tensor]:
    """Sum over local queries of KL(teacher || student) over the row's own candidates, and their number.

    Unit: query. The distributions are softmax(t / teacher_temperature), t normalised first, and softmax(s /
    student_temperature), s cosines; candidates without a teacher score are left out, and a query counts with
    two scores at least. Nothing is multiplied by a temperature squared. Hinton et al., arXiv:1503.02531.
    Raises UserError where the batch has no such scores.
    """
    teacher_RG, student_RG, count = log_probabilities(g, settings, learned)
    total = (teacher_RG.exp() * (teacher_RG - student_RG)).sum()
    return total.to(student_RG.dtype), count


def distill_ce(g: Gathered, settings: DistillCE, learned: Learned) -> tuple[Tensor, Tensor]:
    """Sum over local queries of the student's cross-entropy under the teacher, and their number.

    Unit: query. As `distill_kl`, without the teacher's own entropy: the same gradient, another value
    (BGE-en-icl, arXiv:2409.15700). Raises UserError where the batch has no such scores.
    """
    teacher_RG, student_RG, count = log_probabilities(g, settings, learned)
    return -(teacher_RG.exp() * student_RG).sum().to(student_RG.dtype), count


def margin_mse(g: Gathered, settings: MarginMSE, learned: Learned) -> tuple[Tensor, Tensor]:
    """Sum over pairs of a local query's positive and own hard negative of the margins' squared difference.

    Unit: pair, of those with both teacher scores: ((s+ - s-) / temperature - (t+ - t-))^2, s cosines
    (Hofstätter et al., arXiv:2010.02666). Raises UserError where the batch has no such scores.
    """
    g = g.normalize()
    groups = own_groups(g)
    teacher_BG, student_BG = own_teacher_scores(g, groups, settings), own_cosines(g, groups)
    present_BG = ~teacher_BG.isnan()
    error_BG = student_BG / settings.temperature - teacher_BG.masked_fill(~present_BG, 0)
    positive_BG = g.is_positive_C[groups.place_BG]
    row_P, column_P = (present_BG & positive_BG).nonzero(as_tuple=True)
    pair_PG = (present_BG & ~positive_BG)[row_P]
    square_PG = (error_BG[row_P, column_P][:, None] - error_BG[row_P]).square()
    return square_PG.masked_fill(~pair_PG, 0).sum().to(student_BG.dtype), pair_PG.sum()
