"""The soup stage with validation: greedy as a slow twin, going on after a kill, snapshots, one adapter."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from souped import (
    SHAPES,
    base_weights,
    distance,
    full_of,
    lora_checkpoints,
    put,
    soup_json,
    weights_of,
    write_held_out,
)
from tiny_models import TEXTS
from typer.testing import CliRunner

from embedtrain.artifacts import hash_folder
from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.config.tuning import Lora
from embedtrain.evaluation.measure import measure
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.validation import Validated
from embedtrain.model.checkpoint import all_tensors
from embedtrain.model.load import open_encoder
from embedtrain.stages import soup
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import encoder_folder, open_start
from embedtrain.train.snapshots import snapshot_folder

NAMES = ("one", "two", "three")
PATIENCE_SECONDS = 600
LORAS = (*SHAPES, Lora(rank=2, alpha=8))
Stage = dict[str, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished train stages with adapters of different shapes, one with a snapshot; held-out data."""
    folder = tmp_path_factory.mktemp("stages")
    *last, snapshot = lora_checkpoints(folder, LORAS)
    for name, path in zip(NAMES, last, strict=True):
        (folder / name).mkdir()
        path.rename(folder / name / "encoder")
    snapshot_folder(folder / "one", 150).parent.mkdir()
    snapshot.rename(snapshot_folder(folder / "one", 150))
    write_held_out(folder / "held-out.jsonl")
    return folder


def context_of(place: Path, folder: Path, more: Sequence[Stage] = (), **settings: object) -> StageContext:
    """A soup stage on the three, or on those that `from` names."""
    terms = {"terms": [{"kind": "infonce", "temperature": 0.1}]}
    train = {"kind": "train", "objective": terms, "batch_size": 2, "steps": 200, "lr": 0.1}
    train |= {"snapshot_steps": [150]}
    run = Run.model_validate(
        {
            "name": "r",
            "base": {"model": str(place / "base")},
            "sources": {"faq": {"rows": "x.jsonl"}},
            "stages": [
                *(train | {"name": name} for name in NAMES),
                {"name": "soup", "kind": "soup", "from": list(NAMES)} | settings,
                *more,
            ],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: place / name for name in NAMES}
    return StageContext(run, find_stage(run, "soup"), Machine(), folder, inputs)


def greedy(place: Path) -> dict[str, object]:
    return {"kind": "greedy", "data": [str(place / "held-out.jsonl")]}


def slow_score(place: Path, names: Sequence[str]) -> float:
    """The score of the average of whole models, all in memory."""
    single = [weights_of(place / name / "encoder") for name in names]
    mixed = {n: sum(t[n].double() for t in single) / len(single) for n in single[0]}
    encoder = open_encoder(full_of(place / "one" / "encoder", place / "room"))
    put(encoder, mixed)
    results = [measure(Validated(encoder, "m"), t) for t in find_tasks(place / "held-out.jsonl")]
    return sum(result.figure.value for result in results) / len(results)


def test_greedy_is_a_slow_twins(place: Path, tmp_path: Path) -> None:
    facts = soup.run_stage(context_of(place, tmp_path / "soup", method=greedy(place)))
    alone = {name: slow_score(place, [name]) for name in NAMES}
    order = sorted(NAMES, key=lambda name: (-alone[name], NAMES.index(name)))
    kept, best = [order[0]], alone[order[0]]
    for name in order[1:]:
        if (score := slow_score(place, [*kept, name])) >= best:
            kept, best = [*kept, name], score
    told = soup_json(tmp_path / "soup")
    assert told["order"] == order
    assert [one["name"] for one in told["ingredients"] if one["kept"]] == [n for n in NAMES if n in kept]
    assert [one["score"] for one in told["ingredients"]] == pytest.approx([alone[n] for n in NAMES])
    assert told["score"] == pytest.approx(best)
    assert facts["score"] == told["score"]
    assert len({round(score, 6) for score in alone.values()}) > 1  # the premise: there is something to choose
    single = [weights_of(place / name / "encoder") for name in kept]
    by_hand = {n: sum(t[n].double() for t in single) / len(kept) for n in single[0]}
    assert distance(weights_of(tmp_path / "soup" / "encoder"), by_hand) < 1e-7


def test_finished_evaluations_are_not_made_again(place: Path, tmp_path: Path) -> None:
    """A figure on disk is believed: raised, it makes the model the best."""
    context = context_of(place, tmp_path / "soup", method=greedy(place))
    soup.run_stage(context)
    told = soup_json(tmp_path / "soup")
    worst = told["order"][-1]
    score = next(one["score"] for one in told["ingredients"] if one["name"] == worst)
    cells = [
        path
        for path in (tmp_path / "soup" / "validation").iterdir()
        if json.loads(path.read_text())["model"] == worst
    ]
    assert len(cells) == 1
    changed = json.loads(cells[0].read_text())
    assert changed["metrics"]["ndcg@10"]["value"] == pytest.approx(score)
    changed["metrics"]["ndcg@10"]["value"] = 99.0
    cells[0].write_text(json.dumps(changed))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "soup" / "validation").iterdir()}
    soup.run_stage(context)
    assert soup_json(tmp_path / "soup")["order"][0] == worst
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "soup" / "validation").iterdir()}
    assert all(after[path] == written for path, written in before.items())


def arguments(place: Path, out: Path) -> list[str]:
    models = [str(place / name / "encoder") for name in NAMES]
    options = ["--method", "greedy", "--validate", str(place / "held-out.jsonl"), "--out", str(out)]
    return ["soup", *models, *options]


def finish(place: Path, out: Path) -> None:
    result = CliRunner().invoke(app, arguments(place, out), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def kill_after_two_figures(place: Path, out: Path, cells: Path) -> None:
    """A real process, really killed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "embedtrain", *arguments(place, out)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while len(list(cells.glob("*.json"))) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        child.kill()
        child.wait()


def test_a_killed_soup_goes_on_and_ends_in_the_same_bytes(place: Path, tmp_path: Path) -> None:
    cells = tmp_path / ".killed.soup" / "validation"
    kill_after_two_figures(place, tmp_path / "killed", cells)
    assert not (tmp_path / "killed").exists()
    assert len(list(cells.glob("*.json"))) >= 2
    finish(place, tmp_path / "killed")
    finish(place, tmp_path / "whole")
    assert hash_folder(tmp_path / "killed") == hash_folder(tmp_path / "whole")
    assert not cells.exists()


def test_a_snapshot_is_an_ingredient(place: Path, tmp_path: Path) -> None:
    context = context_of(place, tmp_path / "soup", **{"from": ["one", "one@150"]})
    soup.run_stage(context)
    single = [weights_of(place / "one" / inside) for inside in ("encoder", "snapshots/step-000150")]
    by_hand = {n: (single[0][n].double() + single[1][n].double()) / 2 for n in single[0]}
    assert distance(weights_of(tmp_path / "soup" / "encoder"), by_hand) < 1e-7
    assert distance(single[0], single[1]) > 0.01
    assert [one["name"] for one in soup_json(tmp_path / "soup")["ingredients"]] == ["one", "one@150"]
    with pytest.raises(UserError, match=r"^stage 'soup': two@150: .*snapshots/step-000150 is not there$"):
        encoder_folder(context, "two@150")


def test_an_export_starts_from_a_snapshot(place: Path, tmp_path: Path) -> None:
    more = [{"name": "early", "kind": "export", "from": "one@150"}]
    context = context_of(place, tmp_path / "x", more)
    opened = dict(all_tensors(open_start(replace(context, stage=find_stage(context.run, "early")))))
    assert distance(opened, weights_of(snapshot_folder(place / "one", 150))) == 0.0


def test_folders_are_ingredients(place: Path, tmp_path: Path) -> None:
    soup.run_stage(context_of(place, tmp_path / "soup", **{"from": ["one", str(place / "two")]}))
    single = [weights_of(place / name / "encoder") for name in ("one", "two")]
    by_hand = {n: (single[0][n].double() + single[1][n].double()) / 2 for n in single[0]}
    assert distance(weights_of(tmp_path / "soup" / "encoder"), by_hand) < 1e-7


def test_folded_into_an_adapter_checkpoint(place: Path, tmp_path: Path) -> None:
    facts = soup.run_stage(context_of(place, tmp_path / "soup", adapter_rank=9))
    names = {path.name for path in (tmp_path / "soup" / "encoder").iterdir()}
    assert "adapter.safetensors" in names
    assert not names & {"model.safetensors", "adapter_model.safetensors"}
    assert isinstance(facts["fold_error"], float)
    assert facts["fold_error"] < 1e-4
    soup.run_stage(context_of(place, tmp_path / "whole"))
    folded, whole = tmp_path / "soup" / "encoder", tmp_path / "whole" / "encoder"
    assert distance(weights_of(folded), weights_of(whole)) < 1e-6
    assert distance(weights_of(whole), base_weights(place)) > 0.01
    vectors = [open_encoder(path).encode(TEXTS) for path in (folded, whole)]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5


def test_choosing_by_test_data_is_warned_of(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [str(place / "held-out.jsonl")]
    report = {"name": "report", "kind": "evaluate", "models": ["base_model"], "data": data}
    export = {"name": "base_model", "kind": "export", "from": "base"}
    soup.run_stage(context_of(place, tmp_path / "soup", more=[export, report], method=greedy(place)))
    assert f"stage 'soup': it chooses by {data[0]}, which stage 'report' measures" in capsys.readouterr().err
