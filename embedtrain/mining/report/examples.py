"""Rows drawn at random for the human eye: queries, positives, the negatives kept and those refused."""

from dataclasses import dataclass

import numpy as np

from embedtrain.mining.corpus import generator
from embedtrain.mining.judged import Judged
from embedtrain.mining.negatives import Reason
from embedtrain.mining.report.found import one_line

NUM_ROWS = 5
NUM_REFUSED = 5
UNTOLD = (
    Reason.ABSENT,
    Reason.AFTER_LAST_RANK,
    Reason.SAME_TEXT,
    Reason.NOT_NEEDED,
    Reason.PROMOTED,
    Reason.KEPT,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A text, its score in the judge's column (None where it has none), and what became of it."""

    text: str
    score: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A row; `bound` is the score that negatives stay below by the rules on the judge's column, if any."""

    row: int
    query: str
    bound: float | None
    positives: list[Shown]
    kept: list[Shown]
    refused: list[Shown]


def draw_examples(judged: Judged, listed_QK: np.ndarray) -> list[Example]:
    """A few rows of a source, the same ones each time."""
    drawn = generator(0, judged.source, "examples").permutation(len(listed_QK))[:NUM_ROWS]
    return [show_row(judged, int(number), listed_QK[number]) for number in sorted(drawn)]


def show_row(judged: Judged, number: int, listed_K: np.ndarray) -> Example:
    """One mined row, its best-ranked refused candidates among them."""
    row, scores = judged.rows[number], judged.columns[judged.judge].positive_scores[number]
    refused_K = listed_K & ~np.isin(judged.reason_QK[number], UNTOLD)
    positives = (
        Shown(one_line(text), known(score)) for text, score in zip(row.positives, scores, strict=True)
    )
    filled = (Shown(one_line(judged.texts[id]), None, "random") for id in judged.filled(number))
    return Example(
        row=int(judged.mined.query_row_Q[number]),
        query=one_line(row.query),
        bound=known(judged.bound_Q[number]),
        positives=[*positives, *(show(judged, number, k) for k in judged.promoted(number))],
        kept=[*(show(judged, number, k) for k in judged.kept(number)), *filled],
        refused=[show(judged, number, k) for k in np.flatnonzero(refused_K)[:NUM_REFUSED]],
    )


def show(judged: Judged, number: int, k: int) -> Shown:
    """The candidate k of a mined row."""
    reason = judged.reasons[judged.reason_QK[number, k]]
    note = f"rank {judged.mined.ranks_QK[number, k]}"
    text = one_line(judged.texts[judged.mined.ids_QK[number, k]])
    score = known(judged.columns[judged.judge].score_QK[number, k])
    return Shown(text, score, note if reason == "kept" else f"{reason}, {note}")


def known(score: float) -> float | None:
    """A score that says something."""
    return float(score) if np.isfinite(score) else None
