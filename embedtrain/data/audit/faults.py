"""What may be wrong with rows: a table of faults, each a mask of rows with what it is held against.

N rows of all sources, P their positives, Q their negatives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from embedtrain.data.audit.duplicates import NEAR, exact_duplicates, near_duplicates, pair_keys
from embedtrain.data.audit.examined import Examined

NONE, IT_HAS = -1, -2  # in `against_N`: the row does not have the fault; it has it by itself


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault's name, its heading in a table, what it means, and the rule of a filter stage that mends it."""

    title: str
    heading: str
    meaning: str
    rule: str | None
    against: str = ""  # what the row is held against: "row", "test", or nothing but itself


FAULTS: Mapping[str, Fault] = {
    "exact_duplicates": Fault(
        "exact duplicates",
        "exact",
        "Query and positives all came before, in any case and white space: trained on twice.",
        "exact_duplicates",
        "row",
    ),
    "near_duplicates": Fault(
        "near duplicates",
        "near",
        f"At least {NEAR:.0%} of the neighbouring word pairs are those of an earlier row: in one batch, each "
        "is a false negative of the other.",
        "near_duplicates",
        "row",
    ),
    "query_is_positive": Fault(
        "query = positive",
        "q = p",
        "The query is one of its own positives: nothing to learn.",
        "query_is_positive",
    ),
    "negative_is_positive": Fault(
        "negative = positive",
        "n = p",
        "A negative is one of the row's own positives, but for case and white space.",
        "false_negatives",
    ),
    "conflicts": Fault(
        "conflicts",
        "conflict",
        "A negative that another row of the same query calls a positive.",
        "false_negatives",
        "row",
    ),
    "control_characters": Fault(
        "control characters",
        "control",
        "A text with control characters, or the mark that replaces what could not be decoded.",
        "control_characters",
    ),
    "wordless": Fault(
        "without words",
        "no words",
        "A text without a letter or a digit.",
        "min_query_words, min_positive_words",
    ),
    "test_data": Fault(
        "in test data",
        "in test",
        "A run of words stands in the test data too; a shorter test text counts as a whole.",
        "test_data",
        "test",
    ),
}


def find_faults(examined: Examined) -> dict[str, np.ndarray]:
    """By fault, for each row what it is held against (int64 N): a row or test text, IT_HAS, or NONE.

    Near duplicates are looked for among rows that are no exact ones.
    """
    exact_N = exact_duplicates(examined, np.ones(len(examined), dtype=bool))
    own_Q, other_Q = false_negatives(examined)
    found: dict[str, Callable[[], np.ndarray]] = {
        "exact_duplicates": lambda: exact_N,
        "near_duplicates": lambda: near_duplicates(examined, exact_N == NONE),
        "query_is_positive": lambda: itself(query_is_positive(examined)),
        "negative_is_positive": lambda: itself(any_negative(examined, own_Q)),
        "conflicts": lambda: worst_negative(examined, other_Q),
        "control_characters": lambda: itself(examined.unclean_N),
        "wordless": lambda: itself(examined.wordless_N),
        "test_data": lambda: examined.test_text_N.astype(np.int64),
    }
    return {name: find() for name, find in found.items()}


def itself(mask_N: np.ndarray) -> np.ndarray:
    """IT_HAS where the mask holds, else NONE."""
    return np.where(mask_N, IT_HAS, NONE)


def query_is_positive(examined: Examined) -> np.ndarray:
    """Rows (bool N) whose query is one of their positives."""
    row_P = examined.positive_row_P
    mask_N = np.zeros(len(examined), dtype=bool)
    mask_N[row_P[examined.query_key_N[row_P] == examined.positive_key_P]] = True
    return mask_N


def false_negatives(examined: Examined) -> tuple[np.ndarray, np.ndarray]:
    """(negatives that their own row calls a positive (bool Q), another row of the query that does so (Q)).

    -1 stands for no such row. Rows of all sources count.
    """
    row_P, row_Q = examined.positive_row_P, examined.negative_row_Q
    of_row_Q, of_row_P = pair_keys(row_Q, examined.negative_key_Q), pair_keys(row_P, examined.positive_key_P)
    known_P = pair_keys(examined.query_key_N[row_P], examined.positive_key_P)
    order = np.argsort(known_P, kind="stable")
    sorted_P = known_P[order]
    asked_Q = pair_keys(examined.query_key_N[row_Q], examined.negative_key_Q)
    other_Q = np.full(len(row_Q), NONE, dtype=np.int64)
    last_Q, first_Q = np.searchsorted(sorted_P, asked_Q, side="right") - 1, np.searchsorted(sorted_P, asked_Q)
    for place_Q in (last_Q, first_Q):
        holder_Q = order[np.clip(place_Q, 0, len(sorted_P) - 1)]
        hit_Q = (known_P[holder_Q] == asked_Q) & (row_P[holder_Q] != row_Q)
        other_Q[hit_Q] = row_P[holder_Q][hit_Q]
    return np.isin(of_row_Q, of_row_P), other_Q


def any_negative(examined: Examined, mask_Q: np.ndarray) -> np.ndarray:
    """Rows (bool N) of which a negative is marked."""
    mask_N = np.zeros(len(examined), dtype=bool)
    mask_N[examined.negative_row_Q[mask_Q]] = True
    return mask_N


def worst_negative(examined: Examined, against_Q: np.ndarray) -> np.ndarray:
    """For each row what one of its negatives is held against, or NONE."""
    against_N = np.full(len(examined), NONE, dtype=np.int64)
    np.maximum.at(against_N, examined.negative_row_Q, against_Q)
    return against_N
