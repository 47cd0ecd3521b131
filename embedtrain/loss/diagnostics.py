"""What a batch looks like to an objective: figures that nothing is learned from.

A figure is a local sum and a local count, so that it averages right over processes: the sum of the sums over
the sum of the counts. Scores are held for some local queries at a time; no gradient anywhere.

A all queries, B local queries, C candidates, D dims, H mixed negatives, M different texts, N weights, P pairs
of a local query and one of its positives.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import BlockSwitches, Focal
from embedtrain.config.needs import covers
from embedtrain.config.objective import Objective
from embedtrain.config.terms import InfoNCE, Matryoshka, Sigmoid
from embedtrain.loss.blocks import (
    Block,
    Pairs,
    blocks,
    document_query,
    one_pair,
    pairs,
    positive_cosines,
    query_document,
)
from embedtrain.loss.geometry import effective_rank, sample_documents, sample_queries, uniformity
from embedtrain.loss.infonce import backward_excess, focal_weights, forward_excess
from embedtrain.loss.learned import Learned, value_of, values
from embedtrain.loss.masks import guide, visible
from embedtrain.loss.mixing import own_mixed, shared_mixed
from embedtrain.loss.objective import Placed, place_terms
from embedtrain.loss.stream import like
from embedtrain.loss.views import views

Figures = dict[str, Tensor]
"""Name -> (sum, count)."""
Diagnose = Callable[[Gathered, Mapping[str, Tensor]], Figures]
Measure = Callable[[Gathered], Figures]
Contrastive = InfoNCE | Sigmoid

SCORES = 2**22
"""Most scores of one block that are held at once."""
DEFAULT = InfoNCE(kind="infonce")
"""Whose negatives are looked at where no term of a source has any."""


def build_diagnostics(
    config: Objective, sources: Mapping[str, BlockSwitches | None] | None = None
) -> Diagnose:
    """The function (gathered, learned parameters) -> `diagnostics/<name>` -> (local sum, local count).

    The names are the same on every process. Figures of negatives are those of the source's first infonce or
    sigmoid term, with its switches, masks and widest view; those of a further one carry its name before
    theirs. `sources` holds the switches of the sources that have their own.
    """

    def diagnose(g: Gathered, parameters: Mapping[str, Tensor]) -> Figures:
        switches = (sources or {}).get(g.source) or BlockSwitches()
        with torch.no_grad():
            figures = vector_figures(widest(g, config.matryoshka, "objective"))
            for number, term in enumerate(contrastive_terms(config, switches, g.source)):
                prefix = f"{term.name}/" if number else ""
                figures |= {prefix + name: x for name, x in term_figures(g, term, parameters).items()}
        return {f"diagnostics/{name}": x for name, x in figures.items()}

    return diagnose


def contrastive_terms(config: Objective, switches: BlockSwitches, source: str) -> list[Placed]:
    """The source's infonce and sigmoid terms; DEFAULT where there is none."""
    placed = [
        term
        for term in place_terms(config, switches)
        if isinstance(term.settings, Contrastive) and covers(term.settings, source)
    ]
    return placed or place_terms(config.model_copy(update={"terms": (DEFAULT,)}), switches)


def widest(g: Gathered, matryoshka: Matryoshka | None, place: str) -> Gathered:
    """Unit vectors of the most dims that are trained."""
    return views(g, matryoshka, place)[0][1].normalize()


def figure(total: Tensor, count: Tensor | int, g: Gathered) -> Tensor:
    """(sum, count) in the vectors' precision."""
    return torch.stack([like(g.queries_AD, total), like(g.queries_AD, count)])


# --- pairs and vectors --------------------------------------------------------------------------------------


def vector_figures(g: Gathered) -> Figures:
    """How pairs and vectors lie; the last three are of the whole batch, the same on every process.

    Alignment is the mean squared distance of a query and its positive (Wang & Isola, 2020).
    """
    p = pairs(g)
    squares_P = (g.queries_AD[p.query_P] - g.candidates_CD[p.positive_P]).square().sum(dim=1)
    queries_MD, documents_MD = sample_queries(g), sample_documents(g)
    return {
        "positive_cosine": figure(positive_cosines(g, p).sum(), len(p), g),
        "alignment": figure(squares_P.sum(), len(p), g),
        "uniformity_queries": whole_batch(uniformity, queries_MD),
        "uniformity_documents": whole_batch(uniformity, documents_MD),
        "effective_rank": whole_batch(effective_rank, documents_MD),
    }


def whole_batch(measure: Callable[[Tensor], Tensor], x_MD: Tensor) -> Tensor:
    """The figure with the count 1; 0 and 0 where there are less than two texts to compare."""
    if len(x_MD) < 2:
        return x_MD.new_zeros(2)
    return torch.stack([measure(x_MD), x_MD.new_ones(())])


# --- negatives ----------------------------------------------------------------------------------------------


def term_figures(g: Gathered, term: Placed, parameters: Mapping[str, Tensor]) -> Figures:
    """Figures of what stands in the term's denominators, summed over chunks of local queries."""
    assert isinstance(term.settings, Contrastive)
    g = widest(g, term.matryoshka, term.place)
    learned = values(parameters, term.index, term.settings)
    measures, totals = list(measures_of(g, term.settings, learned)), Figures()
    for part in chunks(g):
        for name, x in (item for measure in measures for item in measure(part).items()):
            totals[name] = totals[name] + x if name in totals else x
    return totals


def measures_of(g: Gathered, settings: Contrastive, learned: Learned) -> Iterator[Measure]:
    """What is measured of the term in each chunk."""
    teacher = guide(g, settings.masks)
    yield partial(negative_figures, settings=settings, teacher=teacher)
    if not isinstance(settings, InfoNCE):
        return
    shared_HD = shared_mixed(g, settings, teacher)
    if settings.mixing:
        yield partial(mixed_figures, settings=settings, teacher=teacher, shared_HD=shared_HD)
    if settings.focal is not None:
        temperature = like(g.queries_AD, value_of(settings.temperature, learned, "temperature"))
        weigh = partial(focal_figures, settings=settings, teacher=teacher, focal=settings.focal)
        yield partial(weigh, temperature=temperature, shared_HD=shared_HD)


def chunks(g: Gathered) -> Iterator[Gathered]:
    """The local queries in parts of SCORES scores a block, or of one query; one part where none is."""
    positives_A = torch.bincount(g.owner_position_C[g.is_positive_C])
    size = max(1, SCORES // (len(g.owner_C) * int(positives_A.max())))
    for start in range(0, max(1, len(g.local_B)), size):
        yield g.rows(start, start + size)


def negative_figures(g: Gathered, settings: Contrastive, teacher: Gathered | None) -> Figures:
    """Figures of the negatives that are let in, and of those that the masks leave."""
    p = pairs(g)
    found = denominator(g, p, settings)
    visible_PC = visible(g, p, found[0], settings.masks, teacher)
    return ranking_figures(g, p, found[0], visible_PC) | hidden_figures(g, p, settings, found, teacher)


def denominator(g: Gathered, p: Pairs, settings: Contrastive) -> list[Block]:
    """All blocks of the term, the query against the documents first."""
    if isinstance(settings, Sigmoid):
        return [query_document(g, p, settings)]
    return blocks(g, p, settings) + ([document_query(g, p)] if settings.symmetric else [])


def ranking_figures(g: Gathered, p: Pairs, block: Block, visible_PC: Tensor) -> Figures:
    """How the query's positives stand against the documents that some pair of the query sees.

    Of several positives the best one counts for accuracy; a tie is wrong. A query that sees no negative is
    not counted. A suspected false negative is a visible one that scores above its pair's positive.
    """
    positive_P = positive_cosines(g, p)
    hardest_P = block.scores_PX.masked_fill(~visible_PC, -torch.inf).amax(dim=1)
    best_B, hardest_B = (largest_of_queries(g, p, score_P) for score_P in (positive_P, hardest_P))
    sees_B = hardest_B.isfinite()
    tie = 16 * torch.finfo(positive_P.dtype).eps  # what two ways to one dot product may differ by
    above_PC = visible_PC & (block.scores_PX > (positive_P + tie)[:, None])
    return {
        "accuracy_at_1": figure((sees_B & (best_B > hardest_B + tie)).sum(), sees_B.sum(), g),
        "hardest_negative_cosine": figure(hardest_B[sees_B].sum(), sees_B.sum(), g),
        "suspected_false_negatives": figure(above_PC.count_nonzero(), visible_PC.count_nonzero(), g),
    }


def largest_of_queries(g: Gathered, p: Pairs, score_P: Tensor) -> Tensor:
    """The largest score of each local query's pairs, (B)."""
    lowest_B = score_P.new_full(g.local_B.shape, -torch.inf)
    return lowest_B.scatter_reduce(0, p.row_P, score_P, "amax")


def hidden_figures(
    g: Gathered, p: Pairs, settings: Contrastive, found: list[Block], teacher: Gathered | None
) -> Figures:
    """The share that each kind of mask hides of the negatives that the switches let in, over all blocks."""
    allowed = torch.stack([block.allowed_PX.count_nonzero() for block in found]).sum()
    figures = {}
    for kind in dict.fromkeys(mask.kind for mask in settings.masks):
        alike = [mask for mask in settings.masks if mask.kind == kind]
        seen = [visible(g, p, block, alike, teacher) for block in found]
        left = torch.stack([seen_PX.count_nonzero() for seen_PX in seen]).sum()
        figures[f"hidden/{kind}"] = figure(allowed - left, allowed, g)
    return figures


def mixed_figures(g: Gathered, settings: InfoNCE, teacher: Gathered | None, shared_HD: Tensor) -> Figures:
    """The mean cosine of a query and a mixed negative in its denominator."""
    p = pairs(g)
    found = [(g.queries_BD @ shared_HD.T).flatten()]
    if any(not mixing.shared for mixing in settings.mixing):
        block = query_document(g, p, settings)
        visible_PC = visible(g, p, block, settings.masks, teacher)
        cosine_PH, exists_PH = own_mixed(g, p, settings, block, visible_PC, teacher)
        pair_B = one_pair(g, p)
        found.append(cosine_PH[pair_B][exists_PH[pair_B]])
    cosines = torch.cat(found)
    return {"mixed_negative_cosine": figure(cosines.sum(), len(cosines), g)}


def focal_figures(
    g: Gathered,
    settings: InfoNCE,
    teacher: Gathered | None,
    focal: Focal,
    temperature: Tensor,
    shared_HD: Tensor,
) -> Figures:
    """The mean focal weight of pairs that see a negative, in both directions where the term is symmetric."""
    p = pairs(g)
    excess = [forward_excess(g, p, settings, teacher, temperature, shared_HD)]
    if settings.symmetric:
        excess.append(backward_excess(g, p, settings, teacher, temperature))
    excess_N = torch.cat(excess)
    weight_N = focal_weights(excess_N[excess_N > -torch.inf], focal)
    return {"focal_weight": figure(weight_N.sum(), len(weight_N), g)}
