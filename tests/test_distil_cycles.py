"""Texts, learning rates and validations of every step, against loops that count one by one."""

import numpy as np
import pytest
from distilling import SETTINGS

from embedtrain.config.distilling import Distil
from embedtrain.train.cycles import Cycles

CASES = [
    (40, {"batch_size": 8, "cycles": 2, "epochs_per_cycle": 1.5}),
    (101, {"batch_size": 32, "cycles": 3, "epochs_per_cycle": 2.0, "warmup_fraction": 0.4}),
    (33, {"batch_size": 32, "cycles": 3, "epochs_per_cycle": 0.5, "final_fraction": 0.0}),
    (5, {"batch_size": 12, "cycles": 1, "epochs_per_cycle": 3.0, "warmup_fraction": 1.0}),
    (64, {"batch_size": 16, "cycles": 1, "epochs_per_cycle": 4.0, "final_fraction": 1.0}),
]


def cycles_of(num_texts: int, settings: dict) -> Cycles:
    teacher = {"kind": "vectors", "folder": "x"}
    return Cycles(num_texts, Distil.model_validate(SETTINGS | settings | {"teacher": teacher}), seed=5)


@pytest.mark.parametrize(("num_texts", "settings"), CASES)
def test_rates_fall_once_a_cycle(num_texts: int, settings: dict) -> None:
    cycles, rates = cycles_of(num_texts, settings), []
    stage = cycles.stage
    steps = max(1, round(stage.epochs_per_cycle * num_texts / stage.batch_size))
    for cycle in range(stage.cycles):
        warmup = round(stage.warmup_fraction * steps) if cycle == 0 else 0
        for step in range(steps):
            if step < warmup:
                rates.append((step + 1) / warmup)
            else:
                fallen = (step - warmup) / (steps - warmup)
                rates.append(1 - fallen * (1 - stage.final_fraction))
    assert [cycles.lr_factor(step) for step in range(len(cycles))] == pytest.approx(rates, abs=1e-12)
    assert cycles.cycle_ends == [steps * (n + 1) for n in range(stage.cycles)]


@pytest.mark.parametrize(("num_texts", "settings"), CASES)
def test_batches_are_epochs_end_to_end(num_texts: int, settings: dict) -> None:
    cycles = cycles_of(num_texts, settings)
    size = cycles.stage.batch_size
    stream = [text for step in range(len(cycles)) for text in cycles.texts(step).tolist()]
    assert len(stream) == len(cycles) * size
    for epoch in range(len(stream) // num_texts):
        one = stream[epoch * num_texts : (epoch + 1) * num_texts]
        assert one == np.random.default_rng([5, epoch]).permutation(num_texts).tolist()
        assert sorted(one) == list(range(num_texts))


@pytest.mark.parametrize(("num_texts", "settings"), CASES)
def test_validated_where_an_epoch_or_a_cycle_ends(num_texts: int, settings: dict) -> None:
    cycles, expected = cycles_of(num_texts, settings), set()
    stage = cycles.stage
    for cycle in range(stage.cycles):
        epoch = 1
        while epoch <= stage.epochs_per_cycle:
            nearest = max(1, round(epoch * num_texts / stage.batch_size))
            expected.add(cycle * cycles.steps_per_cycle + nearest)
            epoch += 1
        expected.add((cycle + 1) * cycles.steps_per_cycle)
    assert {done for done in range(1, len(cycles) + 1) if cycles.is_validated(done)} == expected
    assert len(cycles) in expected
