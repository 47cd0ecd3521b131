"""Candidates and positives as they are shown: texts cut to one line, and what every column says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.mining.judged import Judged
from embedtrain.mining.report.suspects import greatest_excess, worst

WIDTH = 320  # characters of a text that are shown
NUM_SUSPECTS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate that may be an answer, beside its row's positive.

    `column` is the one that puts it highest, by `excess` standard deviations over the positive; `scores` and
    `positive_scores` are those of all columns that know both. `row` is the row's number in the source's file.
    """

    row: int
    query: str
    positive: str
    candidate: str
    rank: int
    reason: str
    column: str
    excess: float
    scores: dict[str, float]
    positive_scores: dict[str, float]


def find_suspects(judged: Judged, among_QK: np.ndarray, names: Sequence[str]) -> list[Found]:
    """The worst of the candidates marked, by the columns named, one a row, worst first."""
    excess = greatest_excess([judged.columns[name] for name in names], judged.mined.present_QK)
    suspects = worst(excess, among_QK, NUM_SUSPECTS)
    return [
        show_found(judged, row, k, names[excess.column_QK[row, k]], float(excess.excess_QK[row, k]))
        for row, k in suspects
    ]


def show_found(judged: Judged, number: int, k: int, column: str, excess: float) -> Found:
    """The candidate k of a mined row, and the positive that the column scores lowest."""
    row = judged.rows[number]
    lowest = int(np.nanargmin(judged.columns[column].positive_scores[number]))
    told = {
        name: (float(scores.score_QK[number, k]), float(scores.positive_scores[number][lowest]))
        for name, scores in judged.columns.items()
    }
    told = {name: pair for name, pair in told.items() if not np.isnan(pair).any()}
    return Found(
        row=int(judged.mined.query_row_Q[number]),
        query=one_line(row.query),
        positive=one_line(row.positives[lowest]),
        candidate=one_line(judged.texts[judged.mined.ids_QK[number, k]]),
        rank=int(judged.mined.ranks_QK[number, k]),
        reason=judged.reasons[judged.reason_QK[number, k]],
        column=column,
        excess=excess,
        scores={name: score for name, (score, _) in told.items()},
        positive_scores={name: score for name, (_, score) in told.items()},
    )


def one_line(text: str) -> str:
    """White space folded, and cut."""
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else line[: WIDTH - 1].rstrip() + "…"
