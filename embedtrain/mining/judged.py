"""A source after the rules: which candidates its rows keep, and how many met each reason. Pure.

Dimensions: Q mined rows, K candidates a row, F random documents a row, N documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.config.mining import Select
from embedtrain.config.rules import Rule, SameLabel, TeacherCeiling
from embedtrain.data.store import RowStore
from embedtrain.mining.choice import choose, fill
from embedtrain.mining.corpus import known_positives
from embedtrain.mining.labels import Labels
from embedtrain.mining.limits import lowest
from embedtrain.mining.lists import Texts
from embedtrain.mining.negatives import (
    Candidates,
    Reason,
    consistent,
    known_texts,
    positive_ranks,
    reason_names,
    refuse,
    refuse_promoted,
    rule_limit,
    with_promoted,
)
from embedtrain.mining.tables import Column, Mined

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Judged:
    """The mined rows of a source, as they were before, their candidates and the reason of each.

    `columns` are mine's and score's, `judge` is the one that rules read, `label` the one of the soft labels;
    `keys_N` int64 and `texts` are the documents, by id. `reason_QK` int16 are places in `reasons`.
    `positive_rank_Q` int64 is the worst rank among the row's positives, 0 where one is no candidate;
    `positive_score_Q` float64 the lowest score, `bound_Q` the least bound that the rules on the judge's
    scores set (inf: none), both NaN where a positive has no score. `filled_QF` int64 are the random documents
    that were added, -1 for none.
    `known_QK` bool: the candidate is the query or a known positive, whichever reason came first.
    """

    source: str
    rows: RowStore
    mined: Mined
    columns: Mapping[str, Column]
    texts: Sequence[str]
    keys_N: np.ndarray
    judge: str
    label: str
    reason_QK: np.ndarray
    reasons: tuple[str, ...]
    positive_rank_Q: np.ndarray
    positive_score_Q: np.ndarray
    bound_Q: np.ndarray
    row_stays_Q: np.ndarray
    filled_QF: np.ndarray
    known_QK: np.ndarray

    @property
    def kept_QK(self) -> np.ndarray:
        """The candidates that became negatives."""
        return self.mask("kept")

    def mask(self, reason: str) -> np.ndarray:
        """bool_QK: the candidates that met a reason of this name."""
        return self.reason_QK == self.reasons.index(reason)

    def kept(self, row: int) -> np.ndarray:
        """Places of the row's negatives among its candidates, best rank first."""
        return np.flatnonzero(self.reason_QK[row] == Reason.KEPT)

    def promoted(self, row: int) -> np.ndarray:
        """Places of the candidates that become positives of the row, each text once, best rank first."""
        places = np.flatnonzero(self.reason_QK[row] == Reason.PROMOTED)
        _, first = np.unique(self.keys_N[self.mined.ids_QK[row, places]], return_index=True)
        return places[np.sort(first)]

    def filled(self, row: int) -> np.ndarray:
        """Ids of the random documents that were added to the row."""
        return self.filled_QF[row][self.filled_QF[row] >= 0]


def gather(
    name: str,
    rows: RowStore,
    mined: Mined,
    keys_N: np.ndarray,
    columns: Mapping[str, Column],
    select: Select,
    judge_column: str,
    *,
    symmetric: bool,
) -> Candidates:
    """What the rules look at; `rows` are all rows of the source."""
    texts, chosen = Texts.of(keys_N), rows.take(mined.query_row_Q)
    asks_labels = any(isinstance(rule, SameLabel) for rule in select.rules)
    return Candidates(
        source=name,
        query_row_Q=mined.query_row_Q,
        ids_QK=mined.ids_QK,
        ranks_QK=mined.ranks_QK,
        columns=columns,
        texts=texts,
        query_key_Q=rows.keys_M[chosen.query_N],
        positive_P=texts.numbers(rows.keys_M[chosen.positive_P]),
        positive_starts=chosen.positive_starts,
        known=texts.lists(known_positives(rows, chosen.query_N, symmetric)),
        judge=judge_column,
        label=select.soft_labels or judge_column,
        labels=Labels.of(rows, chosen.query_N, texts) if asks_labels else None,
        symmetric=symmetric,
    )


def judge(
    candidates: Candidates, select: Select, seed: int, *, rows: RowStore, mined: Mined, texts: Sequence[str]
) -> Judged:
    """Apply the rules of a select stage to one source."""
    rank_Q = positive_ranks(candidates)
    stays_Q = consistent(rank_Q, select)
    known_QK = known_texts(candidates)
    reason_QK = refuse(candidates, select, stays_Q)
    if (reason_QK == Reason.PROMOTED).any():
        candidates = with_promoted(candidates, reason_QK)
        refuse_promoted(candidates, reason_QK)
    choose(candidates, reason_QK, select, seed)
    return Judged(
        source=candidates.source,
        rows=rows,
        mined=mined,
        columns=candidates.columns,
        texts=texts,
        keys_N=candidates.texts.keys_U[candidates.texts.text_N],
        judge=candidates.judge,
        label=candidates.label,
        reason_QK=reason_QK,
        reasons=reason_names(select),
        positive_rank_Q=rank_Q,
        positive_score_Q=lowest(candidates.columns[candidates.judge].positive_scores),
        bound_Q=judge_bound(candidates, select),
        row_stays_Q=stays_Q,
        filled_QF=fill(candidates, reason_QK, stays_Q, select, seed),
        known_QK=known_QK,
    )


def judge_bound(candidates: Candidates, select: Select) -> np.ndarray:
    """bound_Q: the least limit of the rules that read the judge's scores."""
    reads = [r for r in select.rules if isinstance(r, Rule) and r.judge in (None, candidates.judge)]
    none_Q = np.full(len(candidates.ids_QK), np.inf)
    return np.min([none_Q, *(rule_limit(candidates, rule) for rule in reads)], axis=0)


def count(judged: Judged, select: Select) -> Counts:
    """`candidates` by reason, in the order in which they are looked at, and `rows` by what they got."""
    numbers = np.bincount(judged.reason_QK.ravel(), minlength=len(judged.reasons)).tolist()
    last = range(Reason.SAME_TEXT, len(Reason))
    order = [*range(1, Reason.SAME_TEXT), *range(len(Reason), len(numbers)), *last]
    if not any(isinstance(rule, TeacherCeiling) and rule.promote for rule in select.rules):
        order.remove(Reason.PROMOTED)
    return {
        "candidates": {judged.reasons[number]: numbers[number] for number in order},
        "rows": count_rows(judged, select),
    }


def count_rows(judged: Judged, select: Select) -> dict[str, int]:
    """Rows by what they got: dropped, without negatives, with fewer than asked, with all.

    Random documents count as negatives; where the stage fills, `filled_at_random` are the rows with some.
    """
    filled_Q = (judged.filled_QF >= 0).sum(axis=1)
    negatives_Q = (judged.kept_QK.sum(axis=1) + filled_Q)[judged.row_stays_Q]
    full, none = int((negatives_Q == select.num_negatives).sum()), int((negatives_Q == 0).sum())
    counts = {
        "dropped": int((~judged.row_stays_Q).sum()),
        "without_negatives": none,
        "with_fewer_negatives": len(negatives_Q) - full - none,
        "with_all_negatives": full,
    }
    return counts | ({} if select.fill == "nothing" else {"filled_at_random": int((filled_Q > 0).sum())})
