"""Random gathered batches for the terms' tests; slow versions of InfoNCE and sigmoid are in `slow_contrast`.

A all queries, B local queries, C candidates, D dims, K the teacher's dims.
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from embedtrain.batch import Gathered, TeacherVectors

NO_SCORE = math.nan


def random_gathered(
    seed: int,
    *,
    num_queries: int | None = None,
    max_positives: int = 3,
    max_negatives: int = 4,
    dim: int | None = None,
    teacher_dim: int = 5,
    ties: bool = False,
    num_keys: int = 12,
    local: Literal["all", "part", "none"] = "part",
    dtype: torch.dtype = torch.float64,
) -> Gathered:
    """A batch of ragged groups in a strange order, with all that may be missing missing here and there.

    1 to 6 queries with 1 to `max_positives` positives and 0 to `max_negatives` hard negatives each, of 2 to 6
    dims. Texts are equal by chance (`num_keys` different ones), with `ties` vectors too (of whole numbers).
    Some labels are 0, some graded scores NaN; `teacher_scores` "scores" and "reranker" are NaN for whole rows
    and for single candidates. The local queries are all, a part in mixed order, or none. Raw vectors.
    """
    rng = np.random.default_rng(seed)
    num_queries = num_queries or int(rng.integers(1, 7))
    dim = dim or int(rng.integers(2, 7))
    positives = rng.integers(1, max_positives + 1, num_queries)
    negatives = rng.integers(0, max_negatives + 1, num_queries)
    owner = np.repeat(np.arange(num_queries), positives + negatives)
    is_positive = np.concatenate([np.arange(p + n) < p for p, n in zip(positives, negatives, strict=True)])
    order = rng.permutation(len(owner))
    index = rng.permutation(3 * num_queries)[:num_queries]
    part = rng.permutation(num_queries)[: rng.integers(1, num_queries + 1)]
    locals_of = {"all": np.arange(num_queries), "part": part, "none": part[:0]}

    def ints(size: int, high: int) -> Tensor:
        return torch.from_numpy(rng.integers(0, high, size))

    def vectors(count: int, size: int) -> Tensor:
        drawn = rng.normal(size=(count, size))
        if ties:
            drawn = np.round(drawn)
            drawn[~drawn.any(axis=1), 0] = 1.0
        return torch.from_numpy(drawn).to(dtype)

    graded = rng.uniform(0, 5, num_queries).round(1 if ties else 3)
    graded[rng.random(num_queries) < 0.2] = np.nan
    return Gathered(
        queries_AD=vectors(num_queries, dim),
        candidates_CD=vectors(len(owner), dim),
        local_B=torch.from_numpy(locals_of[local]),
        query_index_A=torch.from_numpy(index),
        query_key_A=ints(num_queries, num_keys),
        label_A=ints(num_queries, 4),
        graded_score_A=torch.from_numpy(graded),
        owner_C=torch.from_numpy(index[owner[order]]),
        is_positive_C=torch.from_numpy(is_positive[order]),
        document_key_C=ints(len(owner), num_keys),
        label_C=ints(len(owner), 4),
        teacher_scores={name: random_scores(rng, owner[order]) for name in ("scores", "reranker")},
        teacher_vectors=TeacherVectors(vectors(num_queries, teacher_dim), vectors(len(owner), teacher_dim)),
        source="faq",
        draw_seed=int(rng.integers(2**62)),
    )


def random_scores(rng: np.random.Generator, owner_C: np.ndarray) -> Tensor:
    """A score a candidate; NaN for a quarter of the rows and a tenth of the others' candidates."""
    scores = rng.uniform(-1, 2, len(owner_C)).round(2)
    scores[(rng.random(owner_C.max() + 1) < 0.25)[owner_C]] = NO_SCORE
    scores[rng.random(len(owner_C)) < 0.1] = NO_SCORE
    return torch.from_numpy(scores)


def with_gradient(g: Gathered) -> Gathered:
    """The same batch; its vectors are leaves that collect a gradient."""
    queries_AD, candidates_CD = (v.detach().clone().requires_grad_() for v in (g.queries_AD, g.candidates_CD))
    return replace(g, queries_AD=queries_AD, candidates_CD=candidates_CD)
