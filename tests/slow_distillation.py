"""Contrastive distillation, one number at a time: KL to a teacher and InfoNCE, in every view."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from slow_contrast import slow_infonce

from embedtrain.batch import Gathered
from embedtrain.config.objective import Objective
from embedtrain.config.terms import DistillKL, InfoNCE


def kalm(teacher: str, dims: Sequence[int], mixing: Sequence[str] = ("pair", "list"), **focal: object) -> Any:
    """KaLM-V2.5's shape: KL is the main term, InfoNCE beside it, both in every view."""
    infonce = {
        "kind": "infonce",
        "temperature": 0.05,
        "weight": 0.3,
        "focal": {"gamma": 0.5} | focal,
        "mixing": [{"kind": kind} for kind in mixing],
    }
    kl = {
        "kind": "distill_kl",
        "teacher": teacher,
        "teacher_temperature": 0.1,
        "student_temperature": 0.05,
    }
    weights = (1.0, 0.3, 0.2)[: len(dims)]
    return {"terms": [kl, infonce], "matryoshka": {"dims": list(dims), "weights": weights}}


def slow_objective(g: Gathered, objective: Objective) -> dict[str, float]:
    """By term its weight x the sum over views of their weight x sum / count, in Python's floats."""
    matryoshka = objective.matryoshka
    assert matryoshka is not None
    assert matryoshka.weights is not None
    losses = {term.kind: 0.0 for term in objective.terms}
    for weight, dim in zip(matryoshka.weights, matryoshka.dims, strict=True):
        view = replace(g, queries_AD=g.queries_AD[:, :dim], candidates_CD=g.candidates_CD[:, :dim])
        for term in objective.terms:
            assert isinstance(term, InfoNCE | DistillKL)
            total, count = slow_infonce(view, term) if isinstance(term, InfoNCE) else slow_kl(view, term)
            losses[term.kind] += term.weight * weight * total / (count or 1.0)
    return losses


def slow_kl(g: Gathered, term: DistillKL) -> tuple[float, int]:
    """Sum over local queries of KL(teacher || student) over own candidates with a score, and how many."""
    total, count = 0.0, 0
    for query in g.local_B.tolist():
        own = [c for c, owner in enumerate(g.owner_C.tolist()) if owner == int(g.query_index_A[query])]
        scores = {c: slow_score(g, term, query, c) for c in own}
        scored = [c for c in own if not math.isnan(scores[c])]
        if len(scored) < 2:
            continue
        student = [cosine(g.queries_AD[query].tolist(), g.candidates_CD[c].tolist()) for c in scored]
        p = softmax([scores[c] / term.teacher_temperature for c in scored])
        q = softmax([s / float(term.student_temperature) for s in student])
        total += math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        count += 1
    return total, count


def slow_score(g: Gathered, term: DistillKL, query: int, candidate: int) -> float:
    """What the teacher says: its own vectors' cosine, of all its dims, or the row's score."""
    if term.teacher == "scores":
        return float(g.teacher_scores["scores"][candidate])
    assert g.teacher_vectors is not None
    vectors = g.teacher_vectors
    return cosine(vectors.queries_NK[query].tolist(), vectors.documents_CK[candidate].tolist())


def cosine(x: Sequence[float], y: Sequence[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))


def softmax(values: Sequence[float]) -> list[float]:
    shifted = [math.exp(value - max(values)) for value in values]
    return [value / math.fsum(shifted) for value in shifted]
