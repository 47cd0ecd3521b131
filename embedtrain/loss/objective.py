"""objective = sum over terms and views of weight x local sum / mean over processes of the count."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import BlockSwitches
from embedtrain.config.errors import NotFinite, UserError
from embedtrain.config.formula import term_names
from embedtrain.config.needs import covers, for_source
from embedtrain.config.objective import Objective
from embedtrain.config.terms import Matryoshka, Term
from embedtrain.loss.embed_distill import embed_distill
from embedtrain.loss.graded import cosent
from embedtrain.loss.infonce import infonce
from embedtrain.loss.learned import learned_settings, values
from embedtrain.loss.sigmoid import sigmoid
from embedtrain.loss.soft_labels import distill_ce, distill_kl, margin_mse
from embedtrain.loss.spread import spread
from embedtrain.loss.views import views

MeanCount = Callable[[Tensor], Tensor]
"""The mean of each element over processes."""
ObjectiveFunction = Callable[[Gathered, MeanCount, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]

TERMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "infonce": infonce,
    "distill_kl": distill_kl,
    "distill_ce": distill_ce,
    "margin_mse": margin_mse,
    "cosent": cosent,
    "sigmoid": sigmoid,
    "embed_distill": embed_distill,
    "spread": spread,
}
NEED_NEGATIVES = ("infonce", "sigmoid")


@dataclass(frozen=True, slots=True)
class Placed:
    """A term where it stands in the objective, with the switches of one source, and its view."""

    index: int
    name: str
    settings: Term
    matryoshka: Matryoshka | None
    place: str


@dataclass(frozen=True, slots=True)
class Part:
    """A term in one view: its factor, local sum and local count."""

    name: str
    kind: str
    weight: float
    total: Tensor
    count: Tensor


def build_objective(
    config: Objective, sources: Mapping[str, BlockSwitches | None] | None = None
) -> ObjectiveFunction:
    """The function (gathered, mean_count, learned parameters) -> (loss to differentiate, local figures).

    Averaged over processes, losses and gradients are those of the whole batch on one process, whatever the
    processes' counts: each local sum is divided by the mean count. Figures are each term's weighted loss, and
    learned temperatures and biases. `sources` holds the switches of the sources that have their own.
    """
    everywhere = place_terms(config, None)
    of_source = {
        name: place_terms(config, switches) for name, switches in (sources or {}).items() if switches
    }

    def objective(
        g: Gathered, mean_count: MeanCount, parameters: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = [t for t in of_source.get(g.source, everywhere) if covers(t.settings, g.source)]
        check_terms(g, terms)
        parts = [part for term in terms for part in run_term(term, g, parameters)]
        counts = mean_count(torch.stack([part.count for part in parts]))
        check_found(g, terms, parts, counts)
        figures: dict[str, Tensor] = {}
        for part, count in zip(parts, counts, strict=True):
            loss = part.weight * part.total / torch.where(count > 0, count, 1.0)
            figures[part.name] = figures[part.name] + loss if part.name in figures else loss
        loss = torch.stack(list(figures.values())).sum()
        learned = learned_figures(terms, parameters, loss)
        return loss, {name: figure.detach() for name, figure in (figures | learned).items()}

    return objective


def place_terms(config: Objective, switches: BlockSwitches | None) -> list[Placed]:
    """The terms in batches of a source, whose switches win over those of every term that has them."""
    return [
        Placed(
            index=index,
            name=name,
            settings=for_source(term, switches),
            matryoshka=term.matryoshka or config.matryoshka,
            place="objective" if term.matryoshka is None else f"objective.terms[{index}]",
        )
        for index, (name, term) in enumerate(zip(term_names(config), config.terms, strict=True))
    ]


def run_term(term: Placed, g: Gathered, parameters: Mapping[str, Tensor]) -> Iterable[Part]:
    """The term in each of its views."""
    learned = values(parameters, term.index, term.settings)
    for weight, view in views(g, term.matryoshka, term.place):
        total, count = TERMS[term.settings.kind](view, term.settings, learned)
        counted = torch.as_tensor(count, dtype=total.dtype, device=total.device).detach()
        yield Part(term.name, term.settings.kind, term.settings.weight * weight, total, counted)


def learned_figures(terms: list[Placed], parameters: Mapping[str, Tensor], like: Tensor) -> dict[str, Tensor]:
    """Learned temperatures and biases by `<term>_<name>`."""
    figures = {}
    for term in terms:
        now = values(parameters, term.index, term.settings)
        for name, _ in learned_settings(term.settings):
            figures[f"{term.name}_{name}"] = now[name].to(like.dtype)
    return figures


def check_terms(g: Gathered, terms: list[Placed]) -> None:
    """Raise UserError where no term wants the batch."""
    if not terms:
        raise UserError(
            f"source '{g.source}': no term of the objective counts its batches; mend the terms' sources"
        )


def check_found(g: Gathered, terms: list[Placed], parts: list[Part], counts: Tensor) -> None:
    """Raise NotFinite where a vector is not, UserError where a term that needs negatives found none anywhere.

    Both are read from the device at once: a GPU runs dry while it is read from.
    """
    bad = [(~torch.isfinite(x).all(dim=1)).sum().to(counts) for x in (g.queries_AD, g.candidates_CD)]
    num_bad_queries, num_bad_candidates, *found = torch.stack([*bad, *counts]).tolist()
    for what, num_bad, size in (
        ("query", num_bad_queries, len(g.queries_AD)),
        ("candidate", num_bad_candidates, len(g.candidates_CD)),
    ):
        if num_bad:
            raise NotFinite(
                f"source '{g.source}', term {', '.join(term.name for term in terms)}: {int(num_bad)} of "
                f"{size} {what} vectors hold NaN or infinity; lower lr or max_gradient_norm, "
                "or train in float32"
            )
    for part, count in zip(parts, found, strict=True):
        if count == 0 and part.kind in NEED_NEGATIVES:
            raise UserError(
                f"source '{g.source}', term {part.name}: no query of the batch has a negative to be told "
                "from; switch in_batch_positives on, or give the rows negatives and set num_negatives"
            )
