"""InfoNCE against plain Python loops, in values and gradients."""

import math
from dataclasses import replace

import pytest
import torch
from contrast_settings import GATHERED, UNTIED, infonces
from hypothesis import given, reject, settings
from loss_reference import random_gathered, with_gradient
from slow_contrast import Undecided, slow_infonce
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import Focal, PairMixing
from embedtrain.config.terms import InfoNCE, LearnedTemperature
from embedtrain.loss.infonce import infonce

TERM = InfoNCE(kind="infonce", temperature=0.1)


def gradients(g: Gathered, term: InfoNCE) -> tuple[Tensor, Tensor]:
    leaves = with_gradient(g)
    infonce(leaves, term, {})[0].backward()
    assert leaves.queries_AD.grad is not None
    assert leaves.candidates_CD.grad is not None
    return leaves.queries_AD.grad, leaves.candidates_CD.grad


@settings(max_examples=400, deadline=None)
@given(GATHERED, infonces())
def test_infonce_is_its_definition(g: Gathered, term: InfoNCE) -> None:
    try:
        slow_total, slow_count = slow_infonce(g, term)
    except Undecided:
        reject()
    total, count = infonce(g, term, {})
    assert total.dtype == torch.float64
    assert float(total) == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert float(count) == pytest.approx(slow_count, rel=1e-10, abs=1e-10)


@settings(max_examples=200, deadline=None)
@given(GATHERED, infonces())
def test_every_gradient_is_a_number(g: Gathered, term: InfoNCE) -> None:
    """Also where no query is local, none has a negative, or all are hidden: the graph is never lost."""
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(g, term))


@settings(max_examples=60, deadline=None)
@given(UNTIED, infonces())
def test_local_queries_add_up(g: Gathered, term: InfoNCE) -> None:
    """Sums, counts and gradients of single queries add up to those of all: draws and masks do not change."""
    everyone = replace(g, local_B=torch.arange(len(g.query_index_A)))
    single = [everyone.rows(i, i + 1) for i in range(len(g.query_index_A))]
    total, count = infonce(everyone, term, {})
    sums, counts = zip(*(infonce(one, term, {}) for one in single), strict=True)
    assert float(sum(sums)) == pytest.approx(float(total), rel=1e-10, abs=1e-10)
    assert float(sum(counts)) == pytest.approx(float(count), rel=1e-10, abs=1e-10)
    parts = [gradients(one, term) for one in single]
    for whole, part in zip(gradients(everyone, term), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(sum(part), whole, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("changes", [
    {},
    {"symmetric": True, "query_query": True, "document_document": True},
    {"document_query": True, "focal": Focal(gamma=2.0, detach=False)},
    {"mixing": (PairMixing(kind="pair", count=2), PairMixing(kind="pair", count=2, shared=True))},
])  # fmt: skip
def test_gradient_is_that_of_the_definition(changes: dict[str, object]) -> None:
    """By differences of the value, which is the definition's."""
    g, term = random_gathered(8, num_queries=4, local="part"), TERM.model_copy(update=changes)
    assert len(g.local_B) > 1

    def value(queries_AD: Tensor, candidates_CD: Tensor) -> Tensor:
        return infonce(replace(g, queries_AD=queries_AD, candidates_CD=candidates_CD), term, {})[0]

    leaves = with_gradient(g)
    assert torch.autograd.gradcheck(value, (leaves.queries_AD, leaves.candidates_CD))


def test_a_detached_focal_weight_scales_each_gradient() -> None:
    """The gradient is the sum of w x gradient of -log p; with gradient through w it is another."""
    g = random_gathered(5, num_queries=5, max_positives=1, local="all")
    focal = TERM.model_copy(update={"focal": Focal(gamma=0.5)})
    expected: list[Tensor] = [torch.zeros_like(g.queries_AD), torch.zeros_like(g.candidates_CD)]
    for i in range(5):
        loss = float(infonce(g.rows(i, i + 1), TERM, {})[0])
        for total, part in zip(expected, gradients(g.rows(i, i + 1), TERM), strict=True):
            total += (1 - math.exp(-loss)) ** 0.5 * part
    torch.testing.assert_close(list(gradients(g, focal)), expected)
    through = TERM.model_copy(update={"focal": Focal(gamma=0.5, detach=False)})
    assert not torch.allclose(gradients(g, through)[0], expected[0], rtol=0.01)


def test_focal_of_certain_and_hopeless_pairs_is_finite() -> None:
    """Probabilities that round to 1 and to 0 in float32."""
    g = random_gathered(
        3, num_queries=2, max_positives=1, max_negatives=0, dim=2, num_keys=10**9, local="all"
    )
    east, west = [1.0, 0.0], [-1.0, 0.0]
    for documents in ([east, west], [west, east]):
        order = [documents[int(p)] for p in g.owner_position_C]
        flat = replace(g, queries_AD=torch.tensor([east, west]), candidates_CD=torch.tensor(order))
        for detach in (True, False):
            term = InfoNCE(kind="infonce", temperature=0.005, focal=Focal(detach=detach))
            total, count = infonce(flat, term, {})
            assert float(count) == 2
            assert float(total) == pytest.approx(0.0 if documents[0] == east else 800.0, abs=1e-30)
            assert all(bool(gradient.isfinite().all()) for gradient in gradients(flat, term))


def test_a_learned_temperature_gets_its_gradient() -> None:
    g = random_gathered(6, num_queries=4, local="all")
    learned = TERM.model_copy(update={"temperature": LearnedTemperature()})
    temperature = torch.tensor(0.1, requires_grad=True)
    total, _ = infonce(g, learned, {"temperature": temperature})
    total.backward()  # type: ignore[no-untyped-call]
    step = 1e-5
    upper, lower = (slow_infonce(g, TERM, 0.1 + sign * step)[0] for sign in (1, -1))
    assert total.item() == pytest.approx(slow_infonce(g, TERM)[0], rel=1e-6)  # 0.1 in float32
    assert temperature.grad is not None
    assert float(temperature.grad) == pytest.approx((upper - lower) / (2 * step), rel=1e-5)


def test_low_precision_vectors_are_scored_in_float32() -> None:
    g = random_gathered(7, local="all", dtype=torch.bfloat16)
    up = replace(g, queries_AD=g.queries_AD.float(), candidates_CD=g.candidates_CD.float())
    total, _ = infonce(g, TERM, {})
    assert total.dtype == torch.float32
    assert float(total) == float(infonce(up, TERM, {})[0]) > 0
