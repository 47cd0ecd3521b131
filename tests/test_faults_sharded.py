"""A step without numbers where weights are sharded: all processes skip it, and the next one is whole."""

import math
from pathlib import Path

import pytest
from faulted import poison
from processes import run_on
from training import curve_of, full_stage, train_tiny

from embedtrain.config.schema import Machine
from embedtrain.train.log import Figures


def train_sharded(model: str, folder: str) -> list[Figures]:
    """The curve of a full tuning on the bad row."""
    machine = Machine(sharding="full", keep_tokens=0, num_processes=2, chunk_tokens=64)
    stage = full_stage().model_copy(update={"steps": 8})
    train_tiny(model, Path(folder), stage, machine=machine)
    return curve_of(Path(folder))


@pytest.mark.slow
def test_sharded_processes_skip_alike(tmp_path: Path) -> None:
    curve, other = run_on(2, train_sharded, poison(tmp_path), str(tmp_path / "run"))
    assert other == curve
    skipped = [line["step"] for line in curve if "skipped" in line]
    assert skipped
    assert max(skipped) < 8, "the premise: steps follow"
    assert all(math.isfinite(float(line["loss"])) for line in curve if "skipped" not in line)
