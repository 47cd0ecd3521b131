"""The rules that keep or refuse a mined candidate, each with its reason. Pure, a whole source at once.

Dimensions: Q mined rows, K candidates a row, best first, P positives of all rows, U texts of the corpus.

A text that a list holds several times has one rank, its best, and one verdict. Where a row has several
positives, rules compare with the one that scores lowest: a negative must stay below all of them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from embedtrain.config.mining import Select
from embedtrain.config.rules import AnyRule, Rule, SameLabel, Sample, Shift, TeacherCeiling
from embedtrain.mining.labels import Labels
from embedtrain.mining.limits import limit, lowest
from embedtrain.mining.lists import Lists, Texts, over_equal_texts
from embedtrain.mining.tables import Column

BLOCK = 2**20  # candidates that are looked at together
NO_RANK = np.iinfo(np.int32).max


class Reason(IntEnum):
    """What became of a candidate; the rules' own reasons are numbered from `len(Reason)`."""

    ABSENT = 0  # no candidate here: the row has fewer
    ROW_DROPPED = 1
    SAME_AS_QUERY = 2
    SAME_AS_POSITIVE = 3
    BEFORE_FIRST_RANK = 4
    AFTER_LAST_RANK = 5
    NOT_SCORED = 6
    SAME_TEXT = 7  # equal to a text of the row that is kept already
    NOT_NEEDED = 8
    PROMOTED = 9  # a positive of the row from now on
    KEPT = 10


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the rules look at, for the mined rows of one source.

    `query_row_Q`, `ids_QK` and `ranks_QK` are `Mined`'s, `columns` mine's and score's. `query_key_Q` int64.
    `positive_P` are the rows' own positives as texts (-1: not in the corpus), row by row from
    `positive_starts`; `known` all that any row gives the same query. `judge` is the column that rules read,
    `label` the one written as soft labels. `labels` is None where no rule asks for it.
    """

    source: str
    query_row_Q: np.ndarray
    ids_QK: np.ndarray
    ranks_QK: np.ndarray
    columns: Mapping[str, Column]
    texts: Texts
    query_key_Q: np.ndarray
    positive_P: np.ndarray
    positive_starts: np.ndarray
    known: Lists
    judge: str
    label: str
    labels: Labels | None
    symmetric: bool

    def blocks(self) -> Iterator["Block"]:
        """The mined rows, some at a time."""
        size = max(1, BLOCK // max(self.ids_QK.shape[1], 1))
        for start in range(0, len(self.ids_QK), size):
            rows = slice(start, start + size)
            text_QK = self.texts.of_documents(self.ids_QK[rows])
            ranks_QK = np.where(text_QK >= 0, self.ranks_QK[rows], NO_RANK)
            yield Block(rows, text_QK, over_equal_texts(text_QK, ranks_QK, np.minimum))

    def score(self, column: str, rows: slice) -> np.ndarray:
        """score_QK float64 of some rows."""
        return self.columns[column].score_QK[rows].astype(np.float64)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows: the text of each candidate, -1 where there is none, and the best rank it has in its row."""

    rows: slice
    text_QK: np.ndarray
    rank_QK: np.ndarray

    @property
    def lines(self) -> np.ndarray:
        """Numbers of the rows among all mined ones."""
        return np.arange(self.rows.start, self.rows.start + len(self.text_QK))


def refuse(candidates: Candidates, select: Select, stays_Q: np.ndarray) -> np.ndarray:
    """reason_QK int16: the first reason against each candidate, or KEPT; `stays_Q` are the rows that stay."""
    limits = [rule_limit(candidates, rule) for rule in select.rules]
    reason_QK = np.full(candidates.ids_QK.shape, Reason.KEPT, np.int16)
    for block in candidates.blocks():
        found_QK = reason_QK[block.rows]
        found_QK[~stays_Q[block.rows]] = Reason.ROW_DROPPED
        found_QK[block.text_QK < 0] = Reason.ABSENT
        for code, refused_QK in verdicts(candidates, select, limits, block):
            found_QK[refused_QK & (found_QK == Reason.KEPT)] = code
        stays_QK = found_QK == Reason.KEPT
        found_QK[stays_QK & ~over_equal_texts(block.text_QK, stays_QK, np.logical_and)] = Reason.SAME_TEXT
    return reason_QK


def verdicts(
    candidates: Candidates, select: Select, limits: list[np.ndarray], block: Block
) -> Iterator[tuple[int, np.ndarray]]:
    """(reason, refused_QK) of all that is held against candidates; the first that applies counts."""
    rows, rank_QK = block.rows, block.rank_QK
    yield Reason.SAME_AS_QUERY, same_as_query(candidates, block)
    yield Reason.SAME_AS_POSITIVE, known_positive(candidates, block)
    yield Reason.BEFORE_FIRST_RANK, rank_QK < select.first_rank
    yield Reason.AFTER_LAST_RANK, rank_QK > select.last_rank
    for column in needed_columns(candidates, select):
        yield Reason.NOT_SCORED, np.isnan(candidates.columns[column].score_QK[rows])
    for number, rule in enumerate(select.rules):
        promotes = isinstance(rule, TeacherCeiling) and rule.promote
        code = Reason.PROMOTED if promotes else len(Reason) + number
        yield from rule_verdicts(candidates, rule, code, limits[number][rows], block)


def needed_columns(candidates: Candidates, select: Select) -> Iterator[str]:
    """The columns, beside those that rules read, without whose score no text can be a negative."""
    if select.soft_labels is not None:
        yield candidates.label
    if isinstance(select.choice, Sample) and select.choice.temperature is not None:
        yield candidates.judge


def rule_verdicts(
    candidates: Candidates, rule: AnyRule, code: int, limit_Q: np.ndarray, block: Block
) -> Iterator[tuple[int, np.ndarray]]:
    """What one rule refuses; rules on scores refuse what has none, or whose positive has none."""
    match rule:
        case Shift():
            yield code, block.rank_QK <= rule.ranks
        case SameLabel():
            assert candidates.labels is not None
            yield code, candidates.labels.shared(block.rows, block.text_QK, len(candidates.texts))
        case _:
            score_QK = candidates.score(rule.judge or candidates.judge, block.rows)
            yield Reason.NOT_SCORED, np.isnan(score_QK) | np.isnan(limit_Q)[:, None]
            yield code, score_QK >= limit_Q[:, None]


def rule_limit(candidates: Candidates, rule: AnyRule) -> np.ndarray:
    """limit_Q float64 of the score under a rule; inf for rules that read no score."""
    if not isinstance(rule, Rule):
        return np.full(len(candidates.ids_QK), np.inf)
    scores = candidates.columns[rule.judge or candidates.judge].positive_scores
    every = np.concatenate([np.zeros(0, np.float32), *scores])
    return limit(rule, lowest(scores), every[~np.isnan(every)])


def known_texts(candidates: Candidates) -> np.ndarray:
    """known_QK bool: the candidate is the query or one of its known positives."""
    known_QK = np.zeros(candidates.ids_QK.shape, bool)
    for block in candidates.blocks():
        known_QK[block.rows] = same_as_query(candidates, block) | known_positive(candidates, block)
    return known_QK


def same_as_query(candidates: Candidates, block: Block) -> np.ndarray:
    """same_QK bool: the candidate's text is the query."""
    query_Q = candidates.texts.numbers(candidates.query_key_Q[block.rows])
    return (block.text_QK == query_Q[:, None]) & (block.text_QK >= 0)


def known_positive(candidates: Candidates, block: Block) -> np.ndarray:
    """same_QK bool: the candidate's text is one of the query's known positives."""
    return candidates.known.contain(block.text_QK, block.lines, len(candidates.texts))


def with_promoted(candidates: Candidates, reason_QK: np.ndarray) -> Candidates:
    """The candidates with what was promoted for a query among the known positives of all its rows."""
    rows, places = np.nonzero(reason_QK == Reason.PROMOTED)
    texts = candidates.texts
    keys, numbers = candidates.query_key_Q[rows], texts.of_documents(candidates.ids_QK[rows, places])
    if candidates.symmetric:
        queries = texts.numbers(keys)
        there = queries >= 0
        keys = np.concatenate([keys, texts.keys_U[numbers[there]]])
        numbers = np.concatenate([numbers, queries[there]])
    distinct, line_Q = np.unique(candidates.query_key_Q, return_inverse=True)
    asked = np.isin(keys, distinct)
    promoted = Lists.of(np.searchsorted(distinct, keys[asked]), numbers[asked], len(distinct))
    return replace(candidates, known=candidates.known.joined(promoted.take(line_Q)))


def refuse_promoted(candidates: Candidates, reason_QK: np.ndarray) -> None:
    """Refuse in place what stays and is among the known positives since another row promoted it."""
    for block in candidates.blocks():
        found_QK = reason_QK[block.rows]
        found_QK[known_positive(candidates, block) & (found_QK == Reason.KEPT)] = Reason.SAME_AS_POSITIVE


def positive_ranks(candidates: Candidates) -> np.ndarray:
    """positive_rank_Q int64: the worst rank among a row's positives; 0 where one of them is no candidate."""
    starts, worst_Q = candidates.positive_starts, np.zeros(len(candidates.ids_QK), np.int64)
    for block in candidates.blocks():
        first, last = starts[block.lines[0]], starts[block.lines[-1] + 1]
        counts_Q = np.diff(starts[block.lines[0] : block.lines[-1] + 2])
        owner_P = np.repeat(np.arange(len(counts_Q)), counts_Q)
        positive_P = candidates.positive_P[first:last]
        hit_PK = (block.text_QK[owner_P] == positive_P[:, None]) & (positive_P >= 0)[:, None]
        rank_P = np.where(hit_PK, block.rank_QK[owner_P], NO_RANK).min(axis=1, initial=NO_RANK)
        np.maximum.at(worst_Q[block.rows], owner_P, rank_P)
    return np.where(worst_Q == NO_RANK, 0, worst_Q)


def consistent(positive_rank_Q: np.ndarray, select: Select) -> np.ndarray:
    """Rows whose positive is among the first `require_positive_in_top`; all where nothing is required."""
    if select.require_positive_in_top is None:
        return np.ones(len(positive_rank_Q), bool)
    return (positive_rank_Q >= 1) & (positive_rank_Q <= select.require_positive_in_top)


def reason_names(select: Select) -> tuple[str, ...]:
    """The name of each number in `reason_QK`: `same_as_query` …, then those of the rules in their order.

    A rule has the name of its kind; kinds that come again are told apart by their judge, then by a number.
    """
    kinds = Counter(rule.kind for rule in select.rules)
    names: list[str] = []
    for rule in select.rules:
        name: str = rule.kind
        if kinds[rule.kind] > 1 and isinstance(rule, Rule) and rule.judge:
            name = f"{rule.kind}({rule.judge})"
        again = sum(other.split("#")[0] == name for other in names)
        names.append(f"{name}#{again + 1}" if again else name)
    return (*(reason.name.lower() for reason in Reason), *names)
