"""A batch that gives no number: its step is skipped, told and counted; too many in a row end the stage."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from faulted import BAD, optimizer_steps, poison, shared_skips, skipped_lines, state_of
from processes import run_on
from training import curve_of, parameters, same, tiny_stage, train_tiny

from embedtrain.config.errors import UserError

STEPS = 12


def test_a_step_without_numbers_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters, moments and step counts stay; the curve, the file and the terminal tell of it."""
    stage = tiny_stage(steps=STEPS, max_skipped_steps=1)
    facts, encoder = train_tiny(poison(tmp_path), tmp_path / "run", stage)
    curve, lines = curve_of(tmp_path / "run"), skipped_lines(tmp_path / "run")
    skipped = [line for line in curve if "skipped" in line]
    assert 0 < len(skipped) < STEPS, "the premise: some steps have the row"
    assert [line["skipped"] for line in skipped] == list(range(1, len(skipped) + 1))
    assert not any("loss" in line for line in skipped)
    assert all(np.isfinite(line["loss"]) for line in curve if "skipped" not in line)
    assert [line["step"] for line in lines] == [line["step"] for line in skipped]
    for line in lines:
        assert line["loss"] == "nan"
        assert len(line["rows"][BAD[0]]) == 6
        assert BAD[1] in line["rows"][BAD[0]]
    assert all(np.isfinite(x).all() for x in parameters(encoder).values())
    assert optimizer_steps(tmp_path / "run") == {STEPS - len(skipped)}
    assert facts["skipped_steps"] == len(skipped)
    assert state_of(tmp_path / "run")["skipped"] == len(skipped)
    told = re.findall(r"(?m)^step (\d+): (.*)$", capsys.readouterr().err)
    said = "skipped, the loss is nan and the gradient norm 0"
    file = tmp_path / "run" / "skipped.jsonl"
    assert told == [(str(line["step"]), f"{said}; its rows are in {file}") for line in lines]


def test_a_resumed_training_skips_what_the_whole_one_skipped(tmp_path: Path) -> None:
    stage = tiny_stage(steps=STEPS, keep_last=9)
    model = poison(tmp_path)
    _, encoder = train_tiny(model, tmp_path / "whole", stage)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for folder in ("step-000008", "step-000012"):
        shutil.rmtree(tmp_path / "again" / "checkpoints" / folder)
    _, again = train_tiny(model, tmp_path / "again", stage)
    assert same(parameters(again), parameters(encoder))
    assert curve_of(tmp_path / "again") == curve_of(tmp_path / "whole")
    assert skipped_lines(tmp_path / "again") == skipped_lines(tmp_path / "whole")
    assert state_of(tmp_path / "again") == state_of(tmp_path / "whole")


def test_too_many_in_a_row_end_the_stage(tmp_path: Path) -> None:
    """The message names the place and the limit; the file names the rows."""
    with pytest.raises(UserError) as error:
        train_tiny(poison(tmp_path), tmp_path / "run", tiny_stage(max_skipped_steps=0))
    [line] = skipped_lines(tmp_path / "run")
    assert str(error.value) == (
        f"stage 'tune', step {line['step']}, source 'faq': the loss is nan and the gradient norm 0; it was "
        f"skipped (max_skipped_steps: 0); the rows are in {tmp_path}/run/skipped.jsonl; mend them, lower lr, "
        "raise warmup_fraction, or train in float32"
    )


def test_a_learning_rate_that_destroys_the_model_ends_the_stage(tmp_path: Path) -> None:
    """All steps after it are skipped, four in a row."""
    stage = tiny_stage(lr=1e30, max_gradient_norm=1e30, lora={"rank": 4, "alpha": 8})
    with pytest.raises(UserError, match=r"the loss is nan and .*; 4 steps in a row were skipped \(max_sk"):
        train_tiny(poison(tmp_path), tmp_path / "run", stage)


def test_all_processes_skip_alike(tmp_path: Path) -> None:
    """The row is on one of two; the other skips with it, and both end with the curve of one process."""
    model = poison(tmp_path)
    [one] = run_on(1, shared_skips, model, str(tmp_path / "1"))
    two = run_on(2, shared_skips, model, str(tmp_path / "2"))
    assert [whole for _, whole in (one, *two)] == [True] * 3
    steps = [[line["step"] for line in curve if "skipped" in line] for curve, _ in (one, *two)]
    assert steps[0]
    assert steps[1:] == steps[:1] * 2
    losses = [[line["loss"] for line in curve if "loss" in line] for curve, _ in (one, two[0])]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
