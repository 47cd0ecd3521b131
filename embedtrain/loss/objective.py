"""objective = sum over terms and views of weight x local sum / mean over processes of the count."""

from collections.abc import Callable

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.errors import UserError
from embedtrain.config.objective import Objective
from embedtrain.loss.infonce import infonce
from embedtrain.loss.views import views

MeanCount = Callable[[Tensor], Tensor]
"""The mean of each element over processes."""
ObjectiveFunction = Callable[[Gathered, MeanCount], tuple[Tensor, dict[str, Tensor]]]
Part = tuple[str, float, Tensor, Tensor]
"""Name, weight, local sum and local count of a term in a view."""

TERMS = {"infonce": infonce}


def build_objective(config: Objective) -> ObjectiveFunction:
    """The function (gathered, mean_count) -> (loss to differentiate, this process's loss a term).

    Averaged over processes, losses and gradients are those of the whole batch on one process, whatever the
    processes' counts: each local sum is divided by the mean count.
    """

    def objective(g: Gathered, mean_count: MeanCount) -> tuple[Tensor, dict[str, Tensor]]:
        _check_finite(g, ", ".join(term.kind for term in config.terms))
        parts: list[Part] = [
            (term.kind, term.weight * weight, *TERMS[term.kind](view, term))
            for term in config.terms
            for weight, view in views(g, config.matryoshka)
        ]
        counts = mean_count(torch.stack([count.to(total.dtype) for _, _, total, count in parts]))
        _check_counts(g, parts, counts)
        figures: dict[str, Tensor] = {}
        for (name, weight, total, _), count in zip(parts, counts, strict=True):
            figures[name] = figures.get(name, torch.zeros_like(total)) + weight * total / count
        loss = torch.stack(list(figures.values())).sum()
        return loss, {name: figure.detach() for name, figure in figures.items()}

    return objective


def _check_finite(g: Gathered, terms: str) -> None:
    for what, vectors in (("query", g.queries_BD), ("candidate", g.candidates_CD)):
        bad = ~torch.isfinite(vectors).all(dim=1)
        if bool(bad.any()):
            raise UserError(
                f"source '{g.source}', term {terms}: {int(bad.sum())} of {len(bad)} {what} vectors hold NaN "
                "or infinity; lower lr or max_gradient_norm, or train in float32"
            )


def _check_counts(g: Gathered, parts: list[Part], counts: Tensor) -> None:
    for (name, *_), count in zip(parts, counts.tolist(), strict=True):
        if count == 0:
            raise UserError(
                f"source '{g.source}', term {name}: no query of the batch has a negative to be told from; "
                "switch in_batch_positives on, or give the rows negatives and set num_negatives"
            )
