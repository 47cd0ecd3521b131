"""The tool that measures how data scales, at a small size; and the example of the page on mixtures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import open_rows
from tools.data_figures import make_rows, measured
from tools.data_scale import judge

ROOT = Path(__file__).resolve().parent.parent


def write_sources(folder: Path) -> None:
    """Two sources of 300 and 100 rows."""
    for name, count in (("large", 300), ("small", 100)):
        rows = [Row(f"{name} query {n}", (f"{name} text {n}",), label=f"c{n % 3}") for n in range(count)]
        (folder / name).mkdir(parents=True)
        write_rows(folder / name / "train.parquet", rows)


def test_every_figure_is_measured_and_judged(tmp_path: Path) -> None:
    write_sources(tmp_path / "rows")
    command = [sys.executable, "tools/data_scale.py", "--rows", str(tmp_path / "rows"), "--num-rows", "1000"]
    command += ["--batches", "200", "--parts", "plan", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("data_scale: passed")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["passed"] is True
    first, second, epoch, *plans = found["figures"]
    assert (first["rows"], first["distinct_rows"], first["texts"]) == (1000, 1000, 800)
    assert second["seconds"] < first["seconds"] < epoch["seconds"]
    assert epoch["batches"] == 15
    assert [plan["rows_planned"] for plan in plans] == [200 * 64] * 3
    assert all(plan["peak_bytes"] > 10**7 and plan["step_alone_seconds"] > 0 for plan in plans)


def test_rows_are_paired_anew_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    write_sources(tmp_path)
    asked = {"rows": str(tmp_path / "small/train.parquet"), "wanted": 250, "out": str(tmp_path / "made")}
    assert make_rows(asked) == {"rows": 250}
    made = list(open_rows(tmp_path / "made"))
    assert len({(row.query, row.positives) for row in made}) == 250
    assert {row.query for row in made} == {row.positives[0].replace("text", "query") for row in made}
    assert all(row.positives == (row.query.replace("query", "text"),) for row in made[:100])


def test_the_peak_is_of_what_is_done_inside() -> None:
    with measured() as figures:
        held = np.ones(30_000_000)
        held += 1
    before = figures["peak_bytes"]
    del held
    with measured() as after:
        pass
    assert before - after["peak_bytes"] > 200 * 10**6
    assert figures["seconds"] > 0


def test_a_bound_that_is_missed_is_told() -> None:
    bounds = {"seconds": 60, "growth_bytes": 32}
    figure = {"what": "plan", "seconds": 61.04, "growth_bytes": 31, "bounds": bounds}
    assert judge(figure) == ["plan: seconds 61.0, at most 60"]
    assert judge(figure | {"seconds": 60, "growth_bytes": float("nan")}) == [
        "plan: growth_bytes nan, at most 32"
    ]


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/mixture.md").read_text(), re.DOTALL)
    told: list[tuple[object, ...]] = []
    exec(example, {"print": lambda *values: told.append(values)})
    assert told[0][0] in ("bible", "pydoc")
    assert told[1] == (9.6,)
