"""The sigmoid loss against plain Python loops."""

import pytest
import torch
from contrast_settings import GATHERED, SIGMOIDS
from hypothesis import given, settings
from loss_reference import random_gathered, with_gradient
from slow_contrast import slow_sigmoid

from embedtrain.batch import Gathered
from embedtrain.config.terms import Learned, LearnedTemperature, Sigmoid
from embedtrain.loss.sigmoid import sigmoid


@settings(max_examples=300, deadline=None)
@given(GATHERED, SIGMOIDS)
def test_sigmoid_is_its_definition(g: Gathered, term: Sigmoid) -> None:
    leaves = with_gradient(g)
    total, count = sigmoid(leaves, term, {})
    slow_total, slow_count = slow_sigmoid(g, term, term.temperature, term.bias)
    assert total.item() == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert count.item() == slow_count
    total.backward()
    for leaf in (leaves.queries_AD, leaves.candidates_CD):
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())


def test_learned_temperature_and_bias_get_their_gradient() -> None:
    g = random_gathered(6, num_queries=4, local="all")
    term = Sigmoid(kind="sigmoid")
    assert isinstance(term.temperature, LearnedTemperature)
    assert isinstance(term.bias, Learned)
    values = {name: torch.tensor(x, requires_grad=True) for name, x in (("temperature", 0.3), ("bias", -2.0))}
    total, _ = sigmoid(g, term, values)
    total.backward()
    assert total.item() == pytest.approx(slow_sigmoid(g, term, 0.3, -2.0)[0], rel=1e-6)
    step = 1e-5
    for name, sides in {
        "temperature": ((0.3 + step, -2.0), (0.3 - step, -2.0)),
        "bias": ((0.3, -2.0 + step), (0.3, -2.0 - step)),
    }.items():
        upper, lower = (slow_sigmoid(g, term, *side)[0] for side in sides)
        gradient = values[name].grad
        assert gradient is not None
        assert gradient.item() == pytest.approx((upper - lower) / (2 * step), rel=1e-5)
