"""tools/bench/mining.py and encode.py at a small size: figures, verdicts, absent models and peers."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from exports import PREFIXED, tiny_export

from embedtrain.data.rows import Row
from tools.bench import encode, mining
from tools.bench.encode import (
    LEAST_SPEED,
    OURS,
    PEER,
    drawn_texts,
    encode_table,
    judge_encode,
    measure_encode,
    rows_texts,
)

ROWS = [Row(query=f"query {n}", positives=(f"the answer {n} " + "goes on " * (n % 40),)) for n in range(200)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("bench"), text=PREFIXED)[1]


def test_texts_are_real_and_mixed_in_length() -> None:
    drawn = drawn_texts(ROWS, 100, seed=0)
    assert drawn == drawn_texts(ROWS, 100, seed=0)
    lengths = sorted(len(text.split()) for text in drawn)
    assert lengths[0] >= 3
    assert lengths[-1] <= 300
    assert lengths[75] > 2 * lengths[25]
    own = rows_texts(ROWS, 50, seed=0)
    assert len(set(own)) == 50
    assert set(own) <= {row.query for row in ROWS} | {row.positives[0] for row in ROWS}


def test_small_figures(model: Path) -> None:
    corpora = {"drawn": drawn_texts(ROWS, 100, seed=0)}
    (figures,) = measure_encode(model, "tiny", corpora, max_tokens=900, rounds=2)
    assert 800 < figures["tokens"] <= 900
    assert len(figures["rounds"]) == 2
    assert figures["largest_difference"] < 1e-5
    ratios = sorted(one[PEER]["cpu"] / one[OURS]["cpu"] for one in figures["rounds"])
    assert figures["our_speed_cpu"] == pytest.approx(sum(ratios) / 2)
    columns, rows = encode_table([figures])
    assert {len(row) for row in rows} == {len(columns)}


def test_the_encode_command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is called, without the bound on speed."""
    monkeypatch.setattr(encode, "NO_SLOWER", 0.0)
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"query": row.query, "positives": row.positives}) for row in ROWS]
    rows.write_text("\n".join(lines), encoding="utf-8")
    options = ["--rows", str(rows), "--tokens", "300", "--rounds", "1", "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["encode.py", "--models", str(model), "no_such_model", *options])
    assert encode.main() == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["passed"], found["faults"], list(found["absent"])) == (True, [], ["no_such_model"])
    assert len(found["models"]) == len(encode.LENGTHS)


@pytest.mark.parametrize(
    ("speed", "difference", "faults"),
    [
        (LEAST_SPEED, 1e-6, []),
        (1.19, 1e-6, ["encode, m, drawn texts: 1.19 of sentence-transformers' throughput, at least 1.2"]),
        (
            float("nan"),
            1e-6,
            ["encode, m, drawn texts: nan of sentence-transformers' throughput, at least 1.2"],
        ),
        (1.3, 0.1, ["encode, m, drawn texts: vectors differ by 0.1"]),
    ],
)
def test_the_verdict(speed: float, difference: float, faults: list[str]) -> None:
    figures: dict[str, Any] = {"model": "m", "corpus": "drawn", "skipped": {}}
    assert judge_encode([figures | {"our_speed_cpu": speed, "largest_difference": difference}]) == faults


def test_an_absent_peer_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (figures,) = measure_encode(model, "tiny", {"drawn": ["a text"] * 3}, max_tokens=900, rounds=1)
    assert judge_encode([figures]) == []
    assert "skipped, sentence-transformers is not installed" in encode_table([figures])[1][0]


def test_whole(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verdict last, JSON without the machine's paths, the exit status of the verdict."""
    out = tmp_path / "speed.json"
    arguments = ["--models", str(model), str(tmp_path / "absent"), "--tokens", "400", "--rounds", "1"]
    size = ["--size", "20", "200", "8", "--top-k", "5"]
    monkeypatch.setattr(sys, "argv", ["mining.py", *arguments, *size, "--out", str(out)])
    status = mining.main()
    written = json.loads(out.read_text())
    assert [one["corpus"] for one in written["figures"]["encode"]["models"]] == ["rows'", "drawn"]
    assert written["figures"]["search"]["documents"] == 200
    lines = capsys.readouterr().out.splitlines()
    assert any("absent: skipped, " in line for line in lines)
    assert lines[-1] == (written["faults"][-1] if written["faults"] else "all within their bounds")
    assert status == (1 if written["faults"] else 0)
