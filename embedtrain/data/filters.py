"""The rules of a filter stage: which rows, positives and negatives stay, and what each rule removed.

N rows of all sources, P their positives, Q their negatives.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np

from embedtrain.config.stages import Filter
from embedtrain.data.audit.duplicates import exact_duplicates, near_duplicates
from embedtrain.data.audit.examined import Examined
from embedtrain.data.audit.faults import NONE, false_negatives, query_is_positive
from embedtrain.data.audit.languages import UNSURE, detect_language
from embedtrain.data.rows import Row

Rule = Callable[[Examined, Filter, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Judgment:
    """What stays: rows (bool N), of those the positives (bool P) and negatives (bool Q).

    `removed_by` says which rule removed a row first: its place in RULES, or -1.
    """

    rows_N: np.ndarray
    positives_P: np.ndarray
    negatives_Q: np.ndarray
    removed_by_N: np.ndarray


def judge_rows(examined: Examined, stage: Filter) -> Judgment:
    """Apply the rules in order; each sees only the rows that those before it left."""
    positives_P = examined.positive_words_P >= stage.min_positive_words
    removed_by_N = np.full(len(examined), NONE, dtype=np.int64)
    for number, rule in enumerate(RULES.values()):
        left_N = removed_by_N == NONE
        removed_by_N[left_N & rule(examined, stage, left_N)] = number
    own_Q, other_Q = false_negatives(examined)
    false_Q = (own_Q | (other_Q != NONE)) & stage.false_negatives
    return Judgment(removed_by_N == NONE, positives_P, ~false_Q, removed_by_N)


def without_control_characters(examined: Examined, stage: Filter, _: np.ndarray) -> np.ndarray:
    """Rows with a text that holds control or replacement characters."""
    return examined.unclean_N & stage.control_characters


def with_short_query(examined: Examined, stage: Filter, _: np.ndarray) -> np.ndarray:
    """Rows whose query has too few words."""
    return examined.query_words_N < stage.min_query_words


def with_short_positives(examined: Examined, stage: Filter, _: np.ndarray) -> np.ndarray:
    """Rows of which every positive has too few words."""
    most_N = np.maximum.reduceat(examined.positive_words_P, examined.positive_starts[:-1])
    return np.asarray(most_N < stage.min_positive_words)


def asking_for_the_query(examined: Examined, stage: Filter, _: np.ndarray) -> np.ndarray:
    """Rows whose query is one of their positives."""
    return query_is_positive(examined) & stage.query_is_positive


def touching_test_data(examined: Examined, _: Filter, __: np.ndarray) -> np.ndarray:
    """Rows that share a run of words with the test data that they were examined with."""
    return np.asarray(examined.test_text_N != NONE)


def seen_before(examined: Examined, stage: Filter, left_N: np.ndarray) -> np.ndarray:
    """Rows that an earlier one repeats."""
    return np.asarray(exact_duplicates(examined, left_N & stage.exact_duplicates) != NONE)


def nearly_seen_before(examined: Examined, stage: Filter, left_N: np.ndarray) -> np.ndarray:
    """Rows that an earlier one nearly repeats."""
    if stage.near_duplicates is None:
        return np.zeros(len(examined), dtype=bool)
    return np.asarray(near_duplicates(examined, left_N, stage.near_duplicates) != NONE)


def in_other_language(examined: Examined, stage: Filter, left_N: np.ndarray) -> np.ndarray:
    """Rows with a query or positive that is surely in none of the languages."""
    foreign_N = np.zeros(len(examined), dtype=bool)
    if stage.languages is None:
        return foreign_N
    wanted = {*stage.languages, UNSURE}
    for number, store in enumerate(examined.stores):
        first, last = examined.bounds[number : number + 2]
        here_N = left_N[first:last]
        owner_P = np.repeat(np.arange(len(store)), np.diff(store.positive_starts))
        ids = np.unique(np.concatenate([store.query_N[here_N], store.positive_P[here_N[owner_P]]]))
        foreign_M = np.zeros(len(store.keys_M), dtype=bool)
        foreign_M[[i for i in ids.tolist() if detect_language(store.text(i)) not in wanted]] = True
        here_N = foreign_M[store.query_N]
        here_N[owner_P[foreign_M[store.positive_P]]] = True
        foreign_N[first:last] = here_N
    return foreign_N


RULES: Mapping[str, Rule] = {
    "control_characters": without_control_characters,
    "min_query_words": with_short_query,
    "min_positive_words": with_short_positives,
    "query_is_positive": asking_for_the_query,
    "test_data": touching_test_data,
    "exact_duplicates": seen_before,
    "near_duplicates": nearly_seen_before,
    "languages": in_other_language,
}
"""In their order; a row is counted at the first that removes it."""


def count_removed(examined: Examined, judgment: Judgment, number: int) -> dict[str, Any]:
    """What was removed from source `number`: rows by rule, positives and negatives of the rows that stay."""
    rows = slice(*examined.bounds[number : number + 2].tolist())
    by_rule = np.bincount(judgment.removed_by_N[rows] + 1, minlength=len(RULES) + 1)[1:].tolist()
    return {
        "rows": rows.stop - rows.start,
        "kept": int(judgment.rows_N[rows].sum()),
        "removed": dict(zip(RULES, by_rule, strict=True)),
        "positives_removed": count_items(
            judgment.rows_N, rows, examined.positive_starts, judgment.positives_P
        ),
        "negatives_removed": count_items(
            judgment.rows_N, rows, examined.negative_starts, judgment.negatives_Q
        ),
    }


def count_items(rows_N: np.ndarray, rows: slice, starts: np.ndarray, kept: np.ndarray) -> int:
    """Texts that are dropped from rows that stay."""
    stays = np.repeat(rows_N[rows], np.diff(starts[rows.start : rows.stop + 1]))
    return int((stays & ~kept[starts[rows.start] : starts[rows.stop]]).sum())


def kept_rows(examined: Examined, judgment: Judgment, number: int) -> Iterator[Row]:
    """The rows of source `number` that stay, without the texts that do not."""
    store, first = examined.stores[number], int(examined.bounds[number])
    for row in np.flatnonzero(judgment.rows_N[first : examined.bounds[number + 1]]).tolist():
        positives = slice(*examined.positive_starts[[first + row, first + row + 1]])
        negatives = slice(*examined.negative_starts[[first + row, first + row + 1]])
        yield keep_texts(store[row], judgment.positives_P[positives], judgment.negatives_Q[negatives])


def keep_texts(row: Row, positives: np.ndarray, negatives: np.ndarray) -> Row:
    """The row with the marked texts and their scores."""
    if positives.all() and negatives.all():
        return row
    return replace(
        row,
        positives=tuple(compress(row.positives, positives)),
        negatives=tuple(compress(row.negatives, negatives)),
        positive_scores=keep_scores(row.positive_scores, positives),
        negative_scores=keep_scores(row.negative_scores, negatives),
    )


def keep_scores(scores: tuple[float, ...] | None, kept: np.ndarray) -> tuple[float, ...] | None:
    """The scores of the texts that stay."""
    return None if scores is None else tuple(compress(scores, kept))
