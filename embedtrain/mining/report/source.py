"""What the report says of one source: numbers over all its candidates, and a few texts to read."""

from dataclasses import asdict, dataclass

import numpy as np

from embedtrain.mining.corpus import generator
from embedtrain.mining.judged import Counts, Judged
from embedtrain.mining.negatives import Reason
from embedtrain.mining.report.agreement import Agreement, agreements
from embedtrain.mining.report.examples import Example, draw_examples
from embedtrain.mining.report.found import Found, find_suspects
from embedtrain.mining.report.scores import ColumnScores, column_scores
from embedtrain.mining.report.suspects import greatest_excess

AGREEMENT_ROWS = 2000


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source of a selection; it holds no array and only the texts that are shown.

    `scores` is by column, the judge's among them. `kept_above` counts the kept negatives that some column
    scores at least as high as the row's lowest-scored positive.
    """

    source: str
    num_rows: int
    judge: str
    counts: Counts
    scores: dict[str, ColumnScores]
    agreement: list[Agreement]
    kept_above: int
    kept: list[Found]
    refused: list[Found]
    examples: list[Example]

    def to_json(self) -> dict[str, object]:
        """Counts, scores, agreement and suspects; not the examples, which are there to be read."""
        return {
            **self.counts,
            "scores": {name: asdict(scores) for name, scores in self.scores.items()},
            "agreement": [asdict(agreement) for agreement in self.agreement],
            "suspects": {
                "kept_above_positive": self.kept_above,
                "kept": [asdict(found) for found in self.kept],
                "refused": [asdict(found) for found in self.refused],
            },
        }


def examine(judged: Judged, counts: Counts) -> SourceReport:
    """The report of one source; `counts` are those of its candidates and rows."""
    present_QK = judged.mined.present_QK
    listed_QK = present_QK & first_listed(judged.keys_N[judged.mined.ids_QK])
    columns = list(judged.columns)
    teachers = [name for name in columns if name not in judged.mined.columns] or columns
    excess = greatest_excess(list(judged.columns.values()), present_QK)
    return SourceReport(
        source=judged.source,
        num_rows=len(present_QK),
        judge=judged.judge,
        counts=counts,
        scores=spread_scores(judged, listed_QK),
        agreement=sampled_agreement(judged, listed_QK),
        kept_above=int((excess.excess_QK[judged.kept_QK] >= 0).sum()),
        kept=find_suspects(judged, judged.kept_QK, columns),
        refused=find_suspects(judged, ruled_out(judged) & listed_QK, teachers),
        examples=draw_examples(judged, listed_QK),
    )


def first_listed(keys_QK: np.ndarray) -> np.ndarray:
    """bool (Q, K): the first place of each text in its row; `concatenate` may list one more than once."""
    order = np.argsort(keys_QK, axis=1, kind="stable")
    ordered = np.take_along_axis(keys_QK, order, axis=1)
    again = np.zeros(keys_QK.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    first = np.empty_like(again)
    np.put_along_axis(first, order, ~again, axis=1)
    return first


def ruled_out(judged: Judged) -> np.ndarray:
    """bool (Q, K): the candidates that a rule refused, or made positives."""
    ruled: np.ndarray = (judged.reason_QK >= len(Reason)) | (judged.reason_QK == Reason.PROMOTED)
    return ruled


def spread_scores(judged: Judged, listed_QK: np.ndarray) -> dict[str, ColumnScores]:
    """How each column's scores lie; a column that scored nothing here is left out."""
    before_QK = listed_QK & ~judged.known_QK
    found = {
        name: column_scores(
            column.score_QK, column.positive_scores, before_QK, judged.kept_QK, judged.row_stays_Q
        )
        for name, column in judged.columns.items()
    }
    return {name: scores for name, scores in found.items() if scores is not None}


def sampled_agreement(judged: Judged, listed_QK: np.ndarray) -> list[Agreement]:
    """Agreement of the columns on rows drawn at random, the same ones each time."""
    num = len(listed_QK)
    rows = np.sort(generator(0, judged.source, "agreement").permutation(num)[:AGREEMENT_ROWS])
    return agreements(
        {
            column: np.where(listed_QK[rows], scores.score_QK[rows], np.float32(np.nan))
            for column, scores in judged.columns.items()
        }
    )
