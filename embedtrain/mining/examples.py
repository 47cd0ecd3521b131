"""A page of examples for the human eye: queries, positives, the negatives kept and those refused."""

from collections.abc import Sequence

import numpy as np

from embedtrain.config.mining import Select
from embedtrain.data.rows import Row
from embedtrain.mining.corpus import generator
from embedtrain.mining.negatives import Reason, lowest_ceiling, reason_name
from embedtrain.mining.tables import Mined

NUM_ROWS = 5
NUM_REFUSED = 5
WIDTH = 240  # characters of a text that are shown
UNTOLD = (Reason.ABSENT, Reason.KEPT, Reason.NOT_NEEDED, Reason.AFTER_LAST_RANK)


def examples_text(
    source: str,
    rows: Sequence[Row],
    mined: Mined,
    texts: Sequence[str],
    reason_QK: np.ndarray,
    select: Select,
) -> str:
    """Markdown: a few rows of a source drawn at random, the same ones each time."""
    drawn = generator(0, source, "examples").permutation(len(rows))[:NUM_ROWS]
    parts = (
        _row_text(rows[number], mined, number, texts, reason_QK[number], select) for number in sorted(drawn)
    )
    return "\n".join([f"# {source}\n", *parts])


def _row_text(
    row: Row, mined: Mined, number: int, texts: Sequence[str], reason_K: np.ndarray, select: Select
) -> str:
    positive = mined.positive_score_Q[number : number + 1].astype(np.float64)
    limit = float(lowest_ceiling(select.rules, positive)[0])
    below = f", negatives must stay below {limit:.4f}" if np.isfinite(limit) else ""
    lines = [f"## row {mined.query_row_Q[number]}\n", f"**query** {_shown(row.query)}\n"]
    for text, score in zip(row.positives, mined.positive_scores[number], strict=True):
        lines.append(f"- positive {score:.4f}: {_shown(text)}")
    rank = int(mined.positive_rank_Q[number])
    lines.append(f"\nrank of the positive: {rank or 'beyond the candidates'}{below}\n")
    kept = np.flatnonzero(reason_K == Reason.KEPT)
    refused = [k for k in range(len(reason_K)) if reason_K[k] not in UNTOLD][:NUM_REFUSED]
    for k in [*kept, *refused]:
        name = reason_name(Reason(reason_K[k]), select.rules)
        text = _shown(texts[mined.ids_QK[number, k]])
        lines.append(f"- {name}, rank {k + 1}, {mined.score_QK[number, k]:.4f}: {text}")
    return "\n".join([*lines, ""])


def _shown(text: str) -> str:
    """One line of Markdown: whitespace folded, cut, and nothing read as markup."""
    line = " ".join(text.split())
    line = line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
    return "".join("\\" + char if char in "\\`*_<>#[]|" else char for char in line)
