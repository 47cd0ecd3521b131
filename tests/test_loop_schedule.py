"""The learning rate over the steps, and what decays."""

import math

import pytest
import torch
from torch.nn import Parameter
from training import tiny_stage

from embedtrain.config.stages import Schedule
from embedtrain.train.schedule import lr_factor, make_optimizer


def factors(schedule: Schedule, steps: int) -> list[float]:
    return [lr_factor(schedule, step, steps) for step in range(steps)]


def test_linear() -> None:
    schedule = Schedule(kind="linear", warmup_fraction=0.2, final_fraction=0.0)
    assert factors(schedule, 10) == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )


def test_cosine_ends_at_the_final_fraction() -> None:
    schedule = Schedule(kind="cosine", warmup_fraction=0.0, final_fraction=0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert factors(schedule, 4) == pytest.approx(expected)
    assert lr_factor(schedule, 4, 4) == pytest.approx(0.1)


def test_constant_after_warm_up() -> None:
    schedule = Schedule(kind="constant", warmup_fraction=0.5)
    assert factors(schedule, 4) == [0.5, 1, 1, 1]
    assert factors(Schedule(kind="constant", warmup_fraction=1.0), 2) == [0.5, 1]


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_step_is_without_learning(kind: str, steps: int) -> None:
    assert all(0 < factor <= 1 for factor in factors(Schedule.model_validate({"kind": kind}), steps))


def test_norms_and_biases_do_not_decay() -> None:
    """With a zero gradient only decay moves a parameter."""
    named = [("weight", Parameter(torch.ones(2, 2))), ("norm.weight", Parameter(torch.ones(2)))]
    optimizer = make_optimizer(named, tiny_stage(lr=0.1, weight_decay=0.5))
    for _, parameter in named:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert named[0][1].tolist() == [[pytest.approx(0.95)] * 2] * 2
    assert named[1][1].tolist() == [1, 1]
