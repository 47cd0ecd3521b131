"""What a training stage's terms ask of its rows and its model, checked before anything is trained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np

from embedtrain.config.errors import ConfigError
from embedtrain.config.needs import (
    SCORES,
    VECTORS,
    Contrast,
    covers,
    for_source,
    label_uses,
    only_negatives,
    score_uses,
    uses_batch,
)
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.config.terms import CoSENT, EmbedDistill, InfoNCE, MarginMSE, SoftLabels, Term
from embedtrain.data.store import RowStore

Rows = Callable[[], RowStore]
"""A source's rows, opened when first asked for: most terms ask nothing of them."""


def require(faults: Sequence[str]) -> None:
    """Raise ConfigError with all faults, if there are any."""
    if faults:
        raise ConfigError(faults)


def row_faults(run: Run, stage: Train, rows: Mapping[str, Rows]) -> Iterator[str]:
    """For each term and source, what no row of the source has and the term cannot do without."""
    for name, read in rows.items():
        once = cache(read)
        for number, term in enumerate(stage.objective.terms):
            if covers(term, name):
                resolved = for_source(term, run.sources[name].blocks)
                place = f"stages '{stage.name}' > objective.terms[{number}] ({term.kind}), source '{name}'"
                yield from (f"{place}: {text}" for text in lacks(resolved, stage.num_negatives, once))


def lacks(term: Term, num_negatives: int, rows: Rows) -> Iterator[str]:
    """What the rows lack for a term."""
    if isinstance(term, Contrast):
        yield from contrast_lacks(term, num_negatives, rows)
    elif isinstance(term, SoftLabels):
        yield from soft_label_lacks(term, num_negatives, rows)
    elif isinstance(term, CoSENT) and not has_two_grades(rows()):
        yield "no two rows have different grades; expected numbers under 'score'"
    elif isinstance(term, EmbedDistill) and only_negatives(term) and not has_negatives(rows, 1):
        yield "no row has negatives, and nothing else is learned; switch queries or positives on"


def contrast_lacks(term: Contrast, num_negatives: int, rows: Rows) -> Iterator[str]:
    """What the rows lack for a contrast, its masks and its mixing."""
    if not uses_batch(term) and not has_negatives(rows, 1):
        yield (
            "no row has negatives, and nothing else is told from the positive; "
            "give the rows negatives, or switch in_batch_positives on"
        )
    for number, mixing in enumerate(term.mixing if isinstance(term, InfoNCE) else ()):
        if mixing.parents == "own_negatives" and not has_negatives(rows, 2):
            yield f"mixing[{number}] ({mixing.kind}): no row has two negatives to mix"
    for _, index in label_uses(term):
        if not (rows().label_N >= 0).any():
            yield f"masks[{index}] (same_label): no row has a class; expected text under 'label'"
    for (_, place, _), column in score_uses(term):
        if text := column_fault(column):
            yield f"masks[{place}] (teacher_relevant): {text}"
        elif not np.isfinite(rows().negative_score_Q).any():
            yield (
                f"masks[{place}] (teacher_relevant): no row has scored negatives; "
                "expected numbers under 'negative_scores'"
            )


def soft_label_lacks(term: SoftLabels, num_negatives: int, rows: Rows) -> Iterator[str]:
    """What the rows lack for a teacher's scores of their candidates: first candidates, then scores."""
    pairs = isinstance(term, MarginMSE)
    if pairs and not has_negatives(rows, 1):
        yield "no row has negatives, and their margin to the positive is what is learned"
    elif not enough_candidates(rows(), num_negatives):
        yield "no row has two candidates to compare; give the rows negatives and set num_negatives"
    elif term.teacher != VECTORS:
        if text := column_fault(term.teacher):
            yield text
        elif not enough_scores(rows(), num_negatives, pairs):
            yield (
                "no row has teacher scores of two of its candidates; "
                "expected numbers under 'positive_scores' and 'negative_scores'"
            )


def column_fault(column: str) -> str:
    """What is wrong with a name of teacher scores; empty where nothing is."""
    return "" if column == SCORES else f"no row has teacher scores '{column}'; known: {SCORES}, {VECTORS}"


def has_two_grades(rows: RowStore) -> bool:
    """Whether the rows' grades differ."""
    given = rows.score_N[np.isfinite(rows.score_N)]
    return len(given) > 0 and bool((given != given[0]).any())


def enough_candidates(rows: RowStore, num_negatives: int) -> bool:
    """Whether some row has two candidates in a batch."""
    negatives_N = np.minimum(np.diff(rows.negative_starts), num_negatives)
    return bool((np.diff(rows.positive_starts) + negatives_N > 1).any())


def enough_scores(rows: RowStore, num_negatives: int, pairs: bool) -> bool:
    """Whether two candidates of some row can have scores, one of them a negative where `pairs` asks so."""
    positives_N = count_scored(rows.positive_score_P, rows.positive_starts)
    negatives_N = np.minimum(count_scored(rows.negative_score_Q, rows.negative_starts), num_negatives)
    enough_N = (positives_N > 0) & (negatives_N > 0) if pairs else positives_N + negatives_N > 1
    return bool(enough_N.any())


def count_scored(scores: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How many scores each row has."""
    return np.diff(np.concatenate([[0], np.cumsum(np.isfinite(scores))])[starts])


def has_negatives(rows: Rows, least: int) -> bool:
    """Whether some row has so many negatives."""
    return bool((np.diff(rows().negative_starts) >= least).any())


def view_faults(stage: Train, dim: int) -> Iterator[str]:
    """Views of the objective and of its terms that are wider than the model's vectors."""
    objective = stage.objective
    views = {"objective": objective.matryoshka} | {
        f"objective.terms[{number}] ({term.kind})": term.matryoshka
        for number, term in enumerate(objective.terms)
    }
    for place, view in views.items():
        for wanted in view.dims if view else ():
            if wanted > dim:
                joint = "." if place == "objective" else " > "
                yield (
                    f"stages '{stage.name}' > {place}{joint}matryoshka.dims: found {wanted}, "
                    f"and the model's vectors have {dim} dims"
                )


def teacher_dim_faults(stage: Train, dim: int, teacher_dim: int) -> Iterator[str]:
    """Vector distillation without a projection, between vectors of other dims."""
    for number, term in enumerate(stage.objective.terms):
        if not isinstance(term, EmbedDistill) or term.projection:
            continue
        view = term.matryoshka or stage.objective.matryoshka
        for wanted in view.dims if view else (dim,):
            if wanted > teacher_dim or (wanted == dim and dim != teacher_dim):
                yield (
                    f"stages '{stage.name}' > objective.terms[{number}] ({term.kind}): the teacher's vectors "
                    f"have {teacher_dim} dims, and {wanted} of the model's {dim} are to learn them; "
                    "set projection: true"
                )
