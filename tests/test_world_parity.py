"""tools/world_parity.py: a run is the same on two and four processes, and the tool tells where it is not."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import run_on

from tools.gradient_parity import save_tiny
from tools.world_parity import RESUMED_AT, STEPS, TUNINGS, WAYS, Cell, Key, Measured, compare, measure_all

CELL = Cell("lora", "float64")
Runs = tuple[Path, dict[Key, Measured]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("worlds")
    save_tiny(folder / "model")
    return folder, measure_all(str(folder), [CELL])


def test_two_processes_make_the_run_of_one(alone: Runs) -> None:
    """The whole run, and the rest of it from the checkpoint that one process left."""
    folder, truth = alone
    assert STEPS - RESUMED_AT == 20
    found, _ = run_on(2, measure_all, str(folder), [CELL])
    assert list(found) == [(CELL, way) for way in WAYS]
    for key in truth:
        told = compare(key, 2, found[key], truth[key])
        assert told.passed, told
        assert len(found[key].losses) == STEPS
    assert len(found[CELL, "resumed"].batches) == STEPS - RESUMED_AT
    assert truth[CELL, "whole"].losses == truth[CELL, "resumed"].losses


def test_what_differs_is_told(alone: Runs) -> None:
    """Each of what is compared, moved a little."""
    _, truth = alone
    key = CELL, WAYS[0]
    right = truth[key]
    assert compare(key, 2, right, right).passed
    name, gradient = max(right.gradient.items(), key=lambda pair: float(np.abs(pair[1]).max()))
    for wrong in (
        replace(right, batches=right.batches[::-1]),
        replace(right, gradient=right.gradient | {name: gradient * (1 + 1e-10)}),
        replace(right, losses=[*right.losses[:-1], right.losses[-1] * (1 + 1e-6)]),
        replace(right, losses=[*right.losses[:-1], float("nan")]),
        replace(right, vectors=right.vectors[::-1]),
        replace(right, reciprocal_rank=right.reciprocal_rank + 0.01),
    ):
        assert not compare(key, 2, wrong, right).passed


@pytest.mark.slow
def test_two_and_four_processes_in_every_way(tmp_path: Path) -> None:
    """LoRA and full tuning, float64 and float32."""
    cells = [Cell(*pair) for pair in itertools.product(TUNINGS, ("float64", "float32"))]
    save_tiny(tmp_path / "model")
    truth = measure_all(str(tmp_path), cells)
    for number in (2, 4):
        found = run_on(number, measure_all, str(tmp_path), cells)[0]
        for key in truth:
            told = compare(key, number, found[key], truth[key])
            assert told.passed, told
