"""tools/run_recipe.py on a tiny run of three stages: what it writes, and its verdict."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from tiny_models import save_tiny

from embedtrain.artifacts import read_json
from tools import run_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file that trains two steps, exports and measures."""
    folder = tmp_path_factory.mktemp("recipe")
    save_tiny("llama", folder / "base")
    rows = [{"query": f"question {n}", "positives": [f"answer {n} of many"]} for n in range(12)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    infonce = {"terms": [{"kind": "infonce", "temperature": 0.1}]}
    run = {
        "name": "small",
        "folder": str(folder / "runs"),
        "base": {"model": str(folder / "base")},
        "sources": {"faq": {"rows": str(folder / "rows.jsonl")}},
        "stages": [
            {"name": "tune", "kind": "train", "objective": infonce, "batch_size": 4, "steps": 2, "lr": 1e-3},
            {"name": "final", "kind": "export", "from": "tune", "num_parity_texts": 4},
            {"name": "report", "kind": "evaluate", "models": ["final"], "data": [str(folder / "rows.jsonl")]},
        ],
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    return path


def call(monkeypatch: pytest.MonkeyPatch, config: Path, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["run_recipe.py", str(config), "--out", str(config.parent), *words])
    return run_recipe.main()


def test_it_writes_what_the_run_gave(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = config.parent / "more.jsonl"
    rows = [{"query": f"question {n}", "positives": [f"answer {n} of " + "many " * 50]} for n in range(500)]
    more.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert call(monkeypatch, config, "--data", str(more)) == 0
    found = read_json(config.parent / "small.json")
    assert [(stage["stage"], stage["kind"]) for stage in found["stages"]] == [
        ("tune", "train"), ("final", "export"), ("report", "evaluate"),
    ]  # fmt: skip
    assert found["stages"][0]["training tokens"] > 0
    assert found["stages"][1]["training tokens"] is None
    assert found["machine"]["versions"]["torch"]
    assert {result["task"] for result in found["report"]["results"]} == {"rows", "more"}
    assert 0 < found["seconds of more data"] < found["stages"][2]["seconds"]
    table = (config.parent / "small.md").read_text(encoding="utf-8")
    assert "| tune | train |" in table
    assert "nDCG@10" in table
    assert "on test sets that the run file does not name" in table


def test_a_run_that_took_too_long_is_told(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, config, "--max-minutes", "0.0001") == 1
    assert read_json(config.parent / "small.json")["seconds of more data"] == 0
    assert "TOO SLOW, at most 0.0001 minutes were asked" in capsys.readouterr().out
