"""The loop of a distil stage: gradients, processes, patience, and killed runs that end in the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import (
    collect,
    curve_of,
    make_context,
    outputs,
    run_tiny,
    stage_of,
)
from distilling_shared import job_of, no_skips, three_steps
from processes import run_on

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.load import open_encoder
from embedtrain.stages.context import StageContext
from embedtrain.stages.distil_teacher import teach
from embedtrain.train import distil as loop
from embedtrain.train.taught import Taught
from embedtrain.train.wishes import Wishes

# --- the loop -----------------------------------------------------------------------------------------------


def without_dropout(folder: Path, name: str, **stage: object) -> StageContext:
    """A student whose gradient draws nothing."""
    context = make_context(folder, name, **stage)
    config = read_json(folder / "base" / "config.json")
    config["hidden_dropout_prob"] = config["attention_probs_dropout_prob"] = 0.0
    (folder / "base" / "config.json").write_text(json.dumps(config))
    return context


def made_by(context: StageContext) -> tuple[Path, Path, dict]:
    """The base, the folder with the texts and the teacher's vectors, and the stage's settings."""
    stage = stage_of(context)
    teach(context, stage, collect(context))
    settings = stage.model_dump(mode="json", by_alias=True)
    return Path(context.run.base.model), context.folder, settings


@pytest.mark.parametrize("distance", ["squared_l2", "cosine"])
def test_a_step_has_the_gradient_of_the_mean_distance(tmp_path: Path, distance: str) -> None:
    """Against texts that are encoded one by one, in float64, and summed in a loop."""
    job = job_of(*made_by(without_dropout(tmp_path, "slow", distance=distance)))
    written, total = job.taught.written, torch.zeros((), dtype=torch.float64)
    places = written.training[job.cycles.texts(0)]
    job.encoder.zero_grad()
    for place in places:
        tokens, target = job.taught.lesson(np.array([place]))
        vector = job.encoder(tokens)[0]
        vector, aim = vector / vector.norm(), target[0].double() / target[0].double().norm()
        gap = vector - aim
        total = total + (gap @ gap if distance == "squared_l2" else 1 - vector @ aim)
    (total / len(places)).backward()
    expected = {name: p.grad.clone() for name, p in job.named if p.grad is not None}
    assert "dense.0.weight" in expected
    norm = torch.cat([g.flatten() for g in expected.values()]).norm()
    figures, _ = loop.do_step(job, 0, iter([loop.local_lesson(job, 0)]), no_skips(job), Wishes())
    assert figures["loss"] == pytest.approx(total.item() / len(places), rel=1e-12)
    assert figures["gradient_norm"] == pytest.approx(float(norm), rel=1e-9)
    clip = min(1.0, 1.0 / (float(norm) + 1e-6))
    for name, parameter in job.named:
        torch.testing.assert_close(parameter.grad, clip * expected[name], rtol=1e-9, atol=1e-12)


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """An odd batch in shares of two sizes."""
    made = made_by(without_dropout(tmp_path, "made.partial", batch_size=9))
    _, alone = three_steps(*made)
    found = dict(run_on(2, three_steps, *made))
    assert found.keys() == {0, 1}
    for shared in found.values():
        for line, expected in zip(shared, alone, strict=True):
            assert line == pytest.approx(expected, rel=1e-9)


def test_the_best_is_kept_and_patience_ends_it(tmp_path: Path) -> None:
    """A rate that rises until it overshoots: the weights are those from before."""
    rising = {"lr": 2e-2, "warmup_fraction": 1.0, "cycles": 1, "epochs_per_cycle": 6.0}
    settings = rising | {"patience": 2, "projection": "fitted"}
    folder, facts = run_tiny(tmp_path, **settings)
    losses = {line["step"]: line["validation/loss"] for line in curve_of(folder) if "validation/loss" in line}
    best = min(losses, key=lambda step: losses[step])
    assert facts["best"]["step"] == best
    assert facts["steps"] < facts["steps_planned"]
    assert len([step for step in losses if step > best]) == 2
    student = open_encoder(folder / "encoder")
    context = make_context(tmp_path, "again")
    written = collect(context)
    taught = Taught(written, teach(context, stage_of(context), written).vectors)
    job = loop.prepare(student, taught, stage_of(context), context.machine, context.folder, 7)
    assert loop.measure(job)[0] == pytest.approx(losses[best], rel=1e-5)


# --- stopping and going on ----------------------------------------------------------------------------------


def start(folder: Path, **stage: object) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("distilling.py")
    root = str(program.parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, str(program), str(folder), json.dumps(stage)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def wait_for_lines(path: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert child.poll() is None, child.communicate()[1].decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_killed_stage_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """A real process, killed between two checkpoints, while the best weights are kept too."""
    settings = {"projection": "fitted", "patience": 50, "cycles": 3, "save_every_steps": 7}
    whole, facts = run_tiny(tmp_path / "whole", **settings)
    killed = make_context(tmp_path / "killed", **settings).folder
    child = start(tmp_path / "killed", **settings)
    wait_for_lines(killed / "curve.jsonl", 17, child)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    done = len(curve_of(killed))
    assert 17 <= done < facts["steps"]
    saved = sorted(path.name for path in (killed / "checkpoints").glob("step-*"))
    assert int(saved[-1][5:]) < done
    run_tiny(tmp_path / "killed", **settings)
    assert outputs_but_paths(killed) == outputs_but_paths(whole)
    assert curve_of(killed) == curve_of(whole)


def test_killed_once_its_student_is_written_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """The best weights stay until the folder is in its place."""
    folder, facts = run_tiny(tmp_path, patience=50)
    before = outputs(folder)
    folder, again = run_tiny(tmp_path, patience=50)
    assert outputs(folder) == before
    assert again["best"] == facts["best"]


def outputs_but_paths(folder: Path) -> dict[str, bytes]:
    """The bytes of what is left, but for where the base lies."""
    place = str(folder.parents[1]).encode()
    return {name: content.replace(place, b"") for name, content in outputs(folder).items()}


def test_asked_to_stop_it_leaves_a_checkpoint(tmp_path: Path) -> None:
    context = make_context(tmp_path, cycles=40)
    child = start(tmp_path, cycles=40)
    wait_for_lines(context.folder / "curve.jsonl", 3, child)
    child.terminate()
    said = child.communicate()[1].decode()
    assert "Stopped: stopped at step" in said
    step = len(curve_of(context.folder))
    assert (context.folder / "checkpoints" / f"step-{step:06d}" / "done.json").is_file()


def test_a_checkpoint_of_other_texts_is_refused(tmp_path: Path) -> None:
    folder, _ = run_tiny(tmp_path)
    with pytest.raises(UserError, match="was made by another config, other rows or another model"):
        run_tiny(tmp_path, max_texts=30)
    assert (folder / "checkpoints").is_dir()


def test_without_dropout_a_student_learns_as_one_that_has_none(tmp_path: Path) -> None:
    """The base has a dropout of 0.1, which changes every step where it is on."""
    off, on = run_tiny(tmp_path / "off", dropout=False)[0], run_tiny(tmp_path / "on")[0]
    without_dropout(tmp_path / "bare", "first.partial")
    bare = run_tiny(tmp_path / "bare")[0]
    assert curve_of(off) == curve_of(bare)
    assert curve_of(off) != curve_of(on)
