"""Every term alone, and all of them together: what the tests of the step and of the processes go through."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from contrastive import ragged_rows

from embedtrain.config.objective import Objective
from embedtrain.data.rows import Row, text_key

TEACHER_DIM = 24
MASKS = [
    {"kind": "same_text"},
    {"kind": "same_label"},
    {"kind": "above_margin", "margin": 0.3},
    {"kind": "above_fraction", "fraction": 1.4, "judge": "teacher"},
    {"kind": "teacher_relevant", "threshold": 0.5},
]
LEARNED = {"initial": 0.1, "minimum": 0.02, "maximum": 0.5}
PAIRS = {"kind": "pair", "count": 2}
TERMS: dict[str, dict[str, object]] = {
    "infonce": {"kind": "infonce", "temperature": 0.1},
    "learned temperature": {"kind": "infonce", "temperature": LEARNED},
    "own negatives": {
        "kind": "infonce", "temperature": 0.1, "in_batch_positives": False, "in_batch_negatives": False,
    },
    "all blocks": {
        "kind": "infonce", "temperature": LEARNED, "masks": MASKS,
        "query_query": True, "document_document": True, "document_query": True,
    },
    "both directions": {"kind": "infonce", "temperature": LEARNED, "masks": MASKS[:3], "symmetric": True},
    "focal": {"kind": "infonce", "temperature": 0.1, "focal": {"gamma": 0.5}, "hardness": 5.0},
    "focal with gradient": {
        "kind": "infonce", "temperature": LEARNED,
        "focal": {"gamma": 2.0, "detach": False, "normalize": True},
    },
    "own mixing": {
        "kind": "infonce", "temperature": LEARNED, "masks": MASKS[:2],
        "mixing": [PAIRS, {"kind": "list"}, PAIRS | {"parents": "hardest", "num_parents": 4}],
    },
    "shared mixing": {
        "kind": "infonce", "temperature": 0.1,
        "mixing": [PAIRS | {"shared": True}, {"kind": "list", "shared": True, "detach": True}],
    },
    "sigmoid": {"kind": "sigmoid", "masks": MASKS[:3]},
    "distill_kl": {"kind": "distill_kl", "student_temperature": LEARNED},
    "distill_ce": {
        "kind": "distill_ce", "student_temperature": 0.1, "teacher": "vectors",
        "teacher_normalization": "z_score",
    },
    "margin_mse": {"kind": "margin_mse", "teacher_normalization": "min_max"},
    "cosent": {"kind": "cosent"},
    "projected": {"kind": "embed_distill", "projection": True, "distance": "squared_l2", "normalize": False},
    "embed_distill": {"kind": "embed_distill", "matryoshka": {"dims": [TEACHER_DIM, 8]}, "queries": False},
    "spread": {"kind": "spread"},
}  # fmt: skip
MATRYOSHKA = {"dims": [32, 8], "weights": [1.0, 0.3]}
TOGETHER = (
    "all blocks", "own mixing", "sigmoid", "distill_kl", "margin_mse", "cosent", "projected", "spread",
)  # fmt: skip


def objective(*names: str, **settings: object) -> Objective:
    """The objective of the terms of these names, the second and further ones at lower weights."""
    terms = [TERMS[name] | {"weight": 1 / (place + 1)} for place, name in enumerate(names)]
    return Objective.model_validate({"terms": terms} | settings)


OBJECTIVES = {name: objective(name) for name in TERMS} | {
    "everything": objective(*TOGETHER, matryoshka=MATRYOSHKA),
}


def rich_rows(count: int = 7) -> list[Row]:
    """Ragged rows with labels, grades and teacher scores, all missing on the first rows.

    The last row's negatives hold the first row's positive, and rows far apart share labels: masks reach
    across processes.
    """
    rng = np.random.default_rng(3)
    rows = []
    for i, row in enumerate(ragged_rows(count)):
        scored = {} if i < 3 else {
            "positive_scores": tuple(rng.uniform(0.5, 1, len(row.positives))),
            "negative_scores": tuple(rng.uniform(0, 1, len(row.negatives))),
            "score": float(i % 3),
        }  # fmt: skip
        rows.append(replace(row, label=("red", "green", None)[i % 3], **scored))
    last = rows[-1]
    scores = None if last.negative_scores is None else (0.1, *last.negative_scores)
    rows[-1] = replace(last, negatives=(rows[0].positives[0], *last.negatives), negative_scores=scores)
    return rows


def teach(texts: Sequence[str], side: Literal["query", "document"]) -> np.ndarray:
    """Vectors that depend on the text and the side alone."""
    seeds = [abs(text_key(f"{side} {text}")) for text in texts]
    drawn = [np.random.default_rng(seed).normal(size=TEACHER_DIM) for seed in seeds]
    return np.array(drawn, dtype=np.float32).reshape(len(texts), TEACHER_DIM)
