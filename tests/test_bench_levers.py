"""tools/bench/levers.py on a tiny model: each lever changes what it should, and nothing else."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny

from embedtrain.batch import TokenBatch
from tools.bench.lever_worker import ALL_ON, LEVERS, Asked, take_steps
from tools.bench.levers import compared, judge, left_out, summary

ROOT = Path(__file__).resolve().parent.parent
PADDED, UNSORTED = "without packing: sorted, padded", "without sorting: padded as it comes"
TWICE = "without kept graphs: encoded twice"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("levers") / "model")


def first_steps(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two steps of a way, in this process."""
    monkeypatch.setattr(TokenBatch, "chunks", TokenBatch.chunks)  # a lever replaces it for good
    asked = Asked(
        model=str(model),
        layers=0,
        workload="W4",
        rows=ROOT / "rows" / "pydoc",
        shrink=8,
        chunk_tokens=64,
        threads=torch.get_num_threads(),
        device="cpu",
        precision="float32",
    )
    steps = list(islice(take_steps(LEVERS[name], asked), 2))
    monkeypatch.undo()
    return steps


def test_each_lever_changes_what_it_should(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens run with padding and repetition; the losses, and so the gradients, stay."""
    found = {
        name: first_steps(name, model, monkeypatch)
        for name, lever in LEVERS.items()
        if not lever.only_on_gpu and name != "with torch.compile"
    }
    run = {name: steps[-1]["tokens_run"] for name, steps in found.items()}
    tokens = found[ALL_ON][0]["tokens"]
    assert tokens < run[PADDED] < run[UNSORTED]
    assert run[TWICE] == 2 * tokens
    assert {run[name] for name in run if name not in (PADDED, UNSORTED, TWICE)} == {tokens}
    assert found[ALL_ON][0]["padded"] is None
    assert "sdpa" in found[PADDED][0]["padded"]
    losses = {name: [one["loss"] for one in steps] for name, steps in found.items()}
    assert losses[ALL_ON][0] != losses[ALL_ON][1]
    for name, loss in losses.items():
        if not LEVERS[name].changes_loss:
            assert loss == pytest.approx(losses[ALL_ON], rel=1e-4)


@pytest.mark.slow
def test_the_command(model: Path, tmp_path: Path) -> None:
    """In processes of their own, in turns."""
    words = ["--base", str(model), "--layers", "0", "--workloads", "W4", "--rehearse", "--levers", TWICE]
    done = subprocess.run(
        [sys.executable, "tools/bench/levers.py", *words, "--out", str(tmp_path / "levers.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("levers: passed")
    found: dict[str, Any] = json.loads((tmp_path / "levers.json").read_text())
    ways = found["workloads"]["W4"]
    assert list(ways) == sorted([ALL_ON, TWICE])
    assert ways[TWICE]["tokens_run"] == 2 * ways[ALL_ON]["tokens_run"]
    assert ways[ALL_ON]["time_ratio"] == ways[ALL_ON]["growth_ratio"] == 1
    assert found["how"]["rehearse"] is True
    assert str(model) not in json.dumps(found["how"])


def test_ratios_are_those_of_the_rounds() -> None:
    def steps(*seconds: float) -> list[dict[str, Any]]:
        kept = {"texts": 2, "tokens": 9, "tokens_run": 9, "padded": None, "loss": 1.0}
        return [kept | {"seconds": s, "held_bytes": 100, "peak_bytes": 100 + 50 * s} for s in seconds]

    all_on, other = summary(steps(9.0, 1.0, 2.0, 4.0)), summary(steps(1.0, 3.0, 4.0, 4.0))
    assert (all_on["seconds"], all_on["first_step_seconds"], all_on["growth_bytes"]) == (2.0, 9.0, 450.0)
    assert compared(other, all_on) == {"time_ratio": 2.0, "growth_ratio": 200 / 450}


def test_the_verdict() -> None:
    ways = {ALL_ON: {"losses": [2.0, 1.9]}, PADDED: {"losses": [2.0, 1.8]}}
    ways["with LoRA dropout 0.05"] = {"losses": [3.0, 3.0]}
    assert judge("W4", ways) == [f"W4, {PADDED}: loss 1.80000 in step 2, expected 1.90000"]
    assert judge("W4", ways | {PADDED: {"losses": [2.0001, 1.9]}}) == []


def test_what_says_nothing_on_a_cpu_is_left_out() -> None:
    assert list(left_out("cpu")) == ["with peft's adapters as they come"]
    assert left_out("cuda") == {}
    assert next(iter(LEVERS)) == ALL_ON
