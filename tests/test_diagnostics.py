"""Diagnostics against plain Python loops; what they must not do; how they average over processes."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from contrast_settings import GATHERED, SIGMOIDS, infonces
from hypothesis import assume, given, settings
from loss_reference import random_gathered, with_gradient
from slow_contrast import Place, Slow, Undecided, dot, slow_backward, slow_negatives
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import BlockSwitches, Focal, PairMixing
from embedtrain.config.objective import Objective
from embedtrain.config.terms import CoSENT, InfoNCE, Matryoshka, Sigmoid
from embedtrain.loss import diagnostics
from embedtrain.loss.diagnostics import build_diagnostics
from embedtrain.loss.learned import initial_parameters

Figures = dict[str, tuple[float, float]]
NAMES = {"accuracy_at_1", "hardest_negative_cosine", "suspected_false_negatives"}
ALWAYS = {"positive_cosine", "alignment", "uniformity_queries", "uniformity_documents", "effective_rank"}


def slow_figures(g: Gathered, s: InfoNCE | Sigmoid) -> Figures:
    """Sum and count of every figure of negatives, one number at a time."""
    slow = Slow(g)
    found: dict[str, list[float]] = defaultdict(list)
    for kind in {mask.kind for mask in s.masks}:
        found[f"hidden/{kind}"] = []
    for name in NAMES:
        found[name] = []
    for a in g.local_B.tolist():
        slow_ranking(slow, s, a, found)
        for c in slow.positives(a):
            for left, column in slow_cells(slow, s, a, c):
                for kind in {mask.kind for mask in s.masks}:
                    alike = s.model_copy(update={"masks": tuple(m for m in s.masks if m.kind == kind)})
                    found[f"hidden/{kind}"].append(not slow.visible(alike, a, c, left, [column]))
    if isinstance(s, InfoNCE):
        slow_extras(slow, s, g, found)
    return {name: (math.fsum(xs), len(xs)) for name, xs in found.items()}


def slow_ranking(slow: Slow, s: InfoNCE | Sigmoid, a: int, found: dict[str, list[float]]) -> None:
    query, best, all_seen = ("query", a), -math.inf, []
    for c in slow.positives(a):
        positive = slow.cosine(query, ("document", c))
        seen = [slow.cosine(query, x) for x in slow.visible(s, a, c, query, slow.documents(a, s))]
        found["suspected_false_negatives"] += [score > positive + 1e-9 for score in seen]
        best, all_seen = max(best, positive), all_seen + seen
    if all_seen:
        found["hardest_negative_cosine"].append(max(all_seen))
        found["accuracy_at_1"].append(best > max(all_seen) + 1e-9)


def slow_cells(slow: Slow, s: InfoNCE | Sigmoid, a: int, c: int) -> Iterator[tuple[Place, Place]]:
    """All that the switches set against each other for a pair."""
    query, document = ("query", a), ("document", c)
    yield from ((query, x) for x in slow.documents(a, s))
    if isinstance(s, InfoNCE):
        yield from ((query, x) for x in slow.other_queries(a) if s.query_query)
        yield from ((document, x) for x in slow.other_documents(a) if s.document_document)
        yield from ((document, x) for x in slow.other_queries(a) if s.document_query or s.symmetric)


def slow_extras(slow: Slow, s: InfoNCE, g: Gathered, found: dict[str, list[float]]) -> None:
    """Mixed negatives and focal weights."""
    everyone = range(len(slow.index))
    if s.mixing:
        found["mixed_negative_cosine"] = [
            dot(slow.vector(("query", a)), h)
            for a in g.local_B.tolist()
            for number, mixing in enumerate(s.mixing)
            for owner in (everyone if mixing.shared else [a])
            for h in slow.mixed(s, number, owner)
        ]
    if s.focal:
        temperature = float(s.temperature)
        directions = [slow_negatives(slow, s, temperature)]
        directions += [slow_backward(slow, s, temperature)] * s.symmetric
        weights = found["focal_weight"] = []
        for negatives_of in directions:
            for a in g.local_B.tolist():
                for c in slow.positives(a):
                    positive = slow.cosine(("query", a), ("document", c)) / temperature
                    others = math.fsum(math.exp(x - positive) for x in negatives_of(a, c))
                    if others:
                        weights.append((others / (1 + others)) ** s.focal.gamma)


def slow_pairs(g: Gathered) -> Figures:
    slow = Slow(g)
    pairs = [(("query", a), ("document", c)) for a in g.local_B.tolist() for c in slow.positives(a)]
    squares = [math.dist(slow.vector(q), slow.vector(d)) ** 2 for q, d in pairs]
    cosines = [slow.cosine(q, d) for q, d in pairs]
    return {
        "alignment": (math.fsum(squares), len(squares)),
        "positive_cosine": (math.fsum(cosines), len(cosines)),
    }


def diagnose(g: Gathered, *terms: Any, **changes: Any) -> dict[str, Tensor]:
    config = Objective(terms=terms, **changes)
    found = build_diagnostics(config)(g, initial_parameters(config, g.dim, None, 0))
    return {name.removeprefix("diagnostics/"): x for name, x in found.items()}


def plain(figures: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: pytest.approx(x.tolist(), rel=1e-10, abs=1e-10) for name, x in figures.items()}


@settings(max_examples=300, deadline=None)
@given(GATHERED, infonces() | SIGMOIDS)
def test_figures_are_their_definitions(g: Gathered, term: InfoNCE | Sigmoid) -> None:
    try:
        expected = slow_figures(g, term) | slow_pairs(g)
    except Undecided:
        assume(False)
    found = diagnose(g, term)
    assert {name: list(x) for name, x in expected.items()} == plain(
        {name: x for name, x in found.items() if name in expected}
    )
    assert found.keys() - expected.keys() == ALWAYS - {"positive_cosine", "alignment"}


@pytest.mark.parametrize("scores", [1, 7, 30])
@pytest.mark.parametrize("seed", range(5))
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, scores: int, seed: int) -> None:
    g = random_gathered(seed, num_queries=6, local="all")
    mixing = (PairMixing(kind="pair", count=2), PairMixing(kind="pair", parents="own_negatives", shared=True))
    term = InfoNCE(kind="infonce", focal=Focal(), mixing=mixing, document_document=True, symmetric=True)
    whole = diagnose(g, term)
    monkeypatch.setattr(diagnostics, "SCORES", scores)
    assert len(list(diagnostics.chunks(g))) >= (6 if scores == 1 else 2)
    assert {name: x.tolist() for name, x in diagnose(g, term).items()} == plain(whole)


@pytest.mark.parametrize("seed", range(5))
def test_processes_average_to_the_whole_batch(seed: int) -> None:
    """Sums over sums of counts; one of three processes holds no query."""
    g = random_gathered(seed, num_queries=5, local="all")
    term = InfoNCE(kind="infonce", focal=Focal(), temperature=0.1)
    parts = [diagnose(g.rows(i, j), term) for i, j in ((0, 0), (0, 2), (2, 5))]
    whole = diagnose(g, term)
    assert whole.keys() == parts[0].keys() == parts[1].keys() == parts[2].keys()
    assert NAMES | ALWAYS | {"focal_weight", "hidden/same_text"} == whole.keys()
    for name, x in whole.items():
        total, count = sum(part[name] for part in parts)
        assert float(total / count) == pytest.approx(float(x[0] / x[1]), rel=1e-10)


def test_nothing_to_compare_counts_nothing() -> None:
    g = random_gathered(1, num_queries=1, max_negatives=0, local="all")
    found = diagnose(g, InfoNCE(kind="infonce"))
    assert found["positive_cosine"][1] > 0
    for name in NAMES | {"hidden/same_text", "uniformity_queries"}:
        assert found[name].tolist() == [0, 0]


def test_a_tie_is_wrong_and_the_best_positive_counts() -> None:
    g = random_gathered(0, num_queries=2, local="all")
    g = replace(
        g,
        queries_AD=torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
        query_index_A=torch.tensor([0, 1]),
        query_key_A=torch.tensor([1, 2]),
        label_A=torch.zeros(2, dtype=torch.int64),
        graded_score_A=g.graded_score_A[:2],
        candidates_CD=torch.tensor([[3.0, 4.0], [1.0, 1.0], [6.0, 8.0]], dtype=torch.float64),
        owner_C=torch.tensor([0, 0, 1]),
        is_positive_C=torch.ones(3, dtype=torch.bool),
        document_key_C=torch.tensor([3, 4, 5]),
        label_C=torch.zeros(3, dtype=torch.int64),
        teacher_scores={},
        teacher_vectors=None,
    )
    found = diagnose(g, InfoNCE(kind="infonce", in_batch_negatives=False))
    # query 0: 0.71 beats 0.6 though its other positive ties with it; query 1: 0.8 beats 0.71, not 0.8
    assert found["accuracy_at_1"].tolist() == [1, 2]
    assert found["suspected_false_negatives"].tolist() == [0, 4]


def test_nothing_of_it_has_a_gradient() -> None:
    g = with_gradient(random_gathered(2, num_queries=4, local="all"))
    found = diagnose(g, InfoNCE(kind="infonce", focal=Focal(detach=False), mixing=(PairMixing(kind="pair"),)))
    assert not any(x.requires_grad for x in found.values())


def test_further_terms_carry_their_names_and_other_objectives_are_looked_at_too() -> None:
    g = random_gathered(3, num_queries=4, local="all")
    first, other = InfoNCE(kind="infonce"), InfoNCE(kind="infonce", in_batch_negatives=False, masks=())
    both = diagnose(g, first, Sigmoid(kind="sigmoid", masks=()), other)
    assert {name for name in both if "/" not in name} >= NAMES
    prefixes = {name.rpartition("/")[0] for name in both if "accuracy" in name}
    assert len(prefixes) == 3
    assert "sigmoid" in prefixes
    elsewhere = first.model_copy(update={"sources": ("nli",)})
    alone = diagnose(g, elsewhere, other)
    assert alone["accuracy_at_1"].tolist() == diagnose(g, other)["accuracy_at_1"].tolist()
    graded = diagnose(g, CoSENT(kind="cosent"))
    assert {n: x.tolist() for n, x in graded.items()} == {
        n: x.tolist() for n, x in diagnose(g, first).items()
    }


def test_a_sources_own_switches_and_the_widest_view() -> None:
    g = random_gathered(4, num_queries=4, dim=6, local="all")
    own_only = BlockSwitches(in_batch_positives=False, in_batch_negatives=False)
    config = Objective(terms=(InfoNCE(kind="infonce"),), matryoshka=Matryoshka(dims=(4, 2)))
    found = build_diagnostics(config, {"faq": own_only, "nli": None})(g, {})
    term = InfoNCE(kind="infonce", in_batch_positives=False, in_batch_negatives=False)
    expected = diagnose(g.at_dim(4), term)
    assert {name: x.tolist() for name, x in found.items()} == {
        f"diagnostics/{name}": x.tolist() for name, x in expected.items()
    }
