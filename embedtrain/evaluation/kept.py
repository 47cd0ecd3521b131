"""How much of a figure another model, or the same one in fewer dims or bits, keeps: per cent, with intervals.

Models of one task share their resamples, so a quotient is drawn again pairwise: what makes a query hard for
both moves neither. Dimensions: R resamples.
"""

from collections.abc import Sequence

import numpy as np

from embedtrain.evaluation import intervals
from embedtrain.evaluation.results import Figure, Result


def kept_of(result: Result, whole: Result) -> Figure | None:
    """Per cent of `whole`'s primary figure, on the same task; None where that is not above 0."""
    draws_R, of_R = paired_draws(result, whole)
    if whole.figure.value <= 0:
        return None
    kept_R = np.divide(draws_R, of_R, out=np.full_like(draws_R, np.nan), where=of_R > 0)
    return drawn(100 * (result.figure.value / whole.figure.value), 100 * kept_R)


def paired_draws(result: Result, other: Result) -> tuple[np.ndarray, np.ndarray]:
    """Two models' primary figure in each resample of one task's texts.

    Raises ValueError where the two are not of one task, or were read from a report, which has no draws.
    """
    if (result.task, dict(result.sizes)) != (other.task, dict(other.sizes)):
        raise ValueError(f"{result.model} was measured on {result.task}, {other.model} on {other.task}")
    draws_R, other_R = np.array(result.figure.draws, float), np.array(other.figure.draws, float)
    if not len(draws_R) or len(draws_R) != len(other_R):
        raise ValueError(f"task '{result.task}': {len(draws_R)} and {len(other_R)} draws, expected as many")
    return draws_R, other_R


def mean_kept(figures: Sequence[Figure | None]) -> Figure | None:
    """The mean over tasks; None where one of them is."""
    known = [figure for figure in figures if figure is not None]
    if not known or len(known) < len(figures):
        return None
    return drawn(
        float(np.mean([figure.value for figure in known])), np.mean([f.draws for f in known], axis=0)
    )


def drawn(value: float, draws_R: np.ndarray) -> Figure:
    """The figure; resamples without a value (NaN: nothing to keep) are left out of its interval."""
    return Figure(value, *intervals.bounds(draws_R[~np.isnan(draws_R)]), tuple(draws_R.tolist()))
