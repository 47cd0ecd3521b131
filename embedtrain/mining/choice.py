"""Which of the candidates that stay become negatives, and what fills rows that have too few. Pure.

Draws depend on the seed, the source and the number of the row in its file, and on nothing else.
"""

from collections.abc import Callable

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.config.mining import Select
from embedtrain.config.rules import Sample
from embedtrain.mining.lists import over_equal_texts
from embedtrain.mining.negatives import Block, Candidates, Reason

Draw = Callable[[int], np.random.Generator]


def choose(candidates: Candidates, reason_QK: np.ndarray, select: Select, seed: int) -> None:
    """Leave KEPT in place at most `num_negatives` a row, each text once; the others get their reason."""
    draw = row_draws(seed, candidates.source, "choice")
    for block in candidates.blocks():
        found_QK = reason_QK[block.rows]
        stays_QK = found_QK == Reason.KEPT
        order_QK = np.broadcast_to(np.arange(stays_QK.shape[1], dtype=np.float64), stays_QK.shape)
        pool_QK = stays_QK
        if isinstance(select.choice, Sample):
            pool_QK = stays_QK & (np.cumsum(stays_QK, axis=1) <= select.choice.from_top)
            order_QK = draw_order(candidates, select.choice, block, draw)
        kept_QK = first_different(block.text_QK, order_QK, pool_QK, select.num_negatives)
        again_QK = over_equal_texts(block.text_QK, kept_QK, np.logical_or)
        found_QK[stays_QK & ~kept_QK] = Reason.NOT_NEEDED
        found_QK[stays_QK & ~kept_QK & again_QK] = Reason.SAME_TEXT


def draw_order(candidates: Candidates, sample: Sample, block: Block, draw: Draw) -> np.ndarray:
    """order_QK: taking the lowest first draws without replacement, by softmax(score / temperature).

    Gumbel-top-k (Vieira, 2014): the scores with independent Gumbel noise, sorted.
    """
    rows = candidates.query_row_Q[block.rows].tolist()
    width = block.text_QK.shape[1]
    order_QK = -np.array([draw(row).gumbel(size=width) for row in rows]).reshape(len(rows), width)
    if sample.temperature is not None:
        order_QK -= candidates.score(candidates.judge, block.rows) / sample.temperature
    return order_QK


def first_different(
    text_QK: np.ndarray, order_QK: np.ndarray, pool_QK: np.ndarray, number: int
) -> np.ndarray:
    """kept_QK bool: in each line the first `number` different texts of the pool, lowest order first."""
    places_QK = np.argsort(np.where(pool_QK, order_QK, np.inf), axis=1, kind="stable")
    text_QK, pool_QK = (np.take_along_axis(values, places_QK, axis=1) for values in (text_QK, pool_QK))
    position_QK = np.broadcast_to(np.arange(text_QK.shape[1]), text_QK.shape)
    new_QK = pool_QK & (over_equal_texts(text_QK, position_QK, np.minimum) == position_QK)
    kept_QK = np.zeros(text_QK.shape, bool)
    np.put_along_axis(kept_QK, places_QK, new_QK & (np.cumsum(new_QK, axis=1) <= number), axis=1)
    return kept_QK


def fill(
    candidates: Candidates, reason_QK: np.ndarray, stays_Q: np.ndarray, select: Select, seed: int
) -> np.ndarray:
    """filled_QF int64: random documents for rows that stay with too few negatives, -1 where none is added.

    Never the query, a known positive, a candidate of the row, whatever became of it, or, where `same_label`
    is a rule, a text with the query's label.
    """
    if select.fill == "nothing":
        return np.empty((len(reason_QK), 0), np.int64)
    filled_QF = np.full((len(reason_QK), select.num_negatives), -1)
    wanted_Q = select.num_negatives - (reason_QK == Reason.KEPT).sum(axis=1)
    draw = row_draws(seed, candidates.source, "fill")
    for row in np.flatnonzero(stays_Q & (wanted_Q > 0)).tolist():
        banned = banned_texts(candidates, row)
        allowed = len(candidates.texts) - len(banned)
        number = min(int(wanted_Q[row]), allowed)
        drawn = draw(int(candidates.query_row_Q[row])).choice(allowed, number, replace=False)
        drawn += np.searchsorted(banned - np.arange(len(banned)), drawn, side="right")
        filled_QF[row, :number] = candidates.texts.first_U[drawn]
    return filled_QF


def banned_texts(candidates: Candidates, row: int) -> np.ndarray:
    """The texts, ascending, that may not fill a row."""
    parts = [
        candidates.texts.of_documents(candidates.ids_QK[row]),
        candidates.texts.numbers(candidates.query_key_Q[row : row + 1]),
        candidates.known[row],
    ]
    if candidates.labels is not None:
        parts.append(candidates.labels.texts_of(row))
    banned = np.unique(np.concatenate(parts))
    return banned[banned >= 0]


def row_draws(seed: int, source: str, purpose: str) -> Draw:
    """For each row number of a source a generator of its own (Philox: the row is part of its counter)."""
    key = int(hash_json([seed, source, purpose])[:32], 16)
    return lambda row: np.random.Generator(np.random.Philox(key=key, counter=[0, row, 0, 0]))
