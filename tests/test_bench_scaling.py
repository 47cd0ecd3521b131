"""tools/bench/scaling.py at a tiny size: figures of every size, and the verdict."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_tiny

from embedtrain.data.rows import Row
from tools.bench.scaling import Asked, drawn_rows, fair_share, judge, make_asked, measure

ROOT = Path(__file__).resolve().parent.parent


def test_small_figures(tmp_path: Path) -> None:
    """Sizes take turns in one process."""
    model = save_tiny("llama", tmp_path / "model")
    asked = Asked(
        model=str(model),
        layers=0,
        rows=(ROOT / "rows" / "pydoc",),
        max_tokens=24,
        chunk_tokens=48,
        rounds=3,
        device="cpu",
        precision="float32",
    )
    figures = measure(asked, [8, 16])
    assert [(one["batch"], one["processes"]) for one in figures] == [(8, 1), (16, 1)]
    for one in figures:
        assert sorted(one["rounds"])[1] == one["seconds_a_sample"] > 0
        assert one["tokens_a_sample"] > 4
        assert one["chunks"] == one["batch"] * one["tokens_a_sample"] / 48 > 1
        assert one["growth_bytes"] >= 0


@pytest.mark.slow
def test_two_processes_share_a_batch(tmp_path: Path) -> None:
    """Says nothing of the verdict: a tiny model's steps are all overhead."""
    model, out = save_tiny("llama", tmp_path / "model"), tmp_path / "scaling.json"
    words = ["--base", str(model), "--layers", "0", "--rows", "rows/pydoc", "--max-tokens", "24"]
    words += ["--sizes", "16", "--processes", "2", "--global-batch", "16", "--chunk-tokens", "48"]
    done = subprocess.run(
        [sys.executable, "tools/bench/scaling.py", *words, "--rounds", "1", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert out.exists(), done.stderr
    found = json.loads(out.read_text())
    assert done.returncode == (0 if found["passed"] else 1), done.stderr
    assert found["how"]["measured"] == "CPU-seconds"
    [one], [two] = found["figures"]["batch size"], found["figures"]["processes"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["tokens_a_sample"] == one["tokens_a_sample"] > 0
    assert str(tmp_path) not in json.dumps(found["how"])


def figure(batch: int, seconds: float, chunks: float = 4.0) -> dict[str, Any]:
    """What `judge` reads."""
    return {"batch": batch, "processes": 1, "seconds_a_sample": seconds, "chunks": chunks}


@pytest.mark.parametrize(
    ("figures", "faults"),
    [
        ([figure(256, 0.1), figure(512, 0.2), figure(1024, 0.114)], []),
        (
            [figure(256, 0.1), figure(1024, 0.12)],
            ["batch size: a sample costs 1.20 times the first one's, at most 1.15"],
        ),
        (
            [figure(256, 0.1), figure(1024, float("nan"))],
            ["batch size: a sample costs nan times the first one's, at most 1.15"],
        ),
        (
            [figure(256, 0.1, chunks=0.9), figure(1024, 0.1)],
            [
                "batch size: a batch of 256 on 1 processes is one chunk, whose graph is kept; "
                "lower --chunk-tokens"
            ],
        ),
    ],
)
def test_the_verdict(figures: list[dict[str, Any]], faults: list[str]) -> None:
    assert judge("batch size", figures) == faults


def test_a_small_batch_holds_texts_like_a_large_one() -> None:
    rows = [Row("q" * (n * 7 % 100), ("positive",)) for n in range(90)]
    drawn = drawn_rows(rows, 64)
    lengths = [len(row.query) for row in drawn]
    assert lengths == sorted(lengths)
    assert len(drawn_rows(rows, 200)) == 200
    means = [sum(len(row.query) for row in fair_share(drawn, size)) / size for size in (8, 64)]
    assert means[0] == pytest.approx(means[1], rel=0.05)


def test_rows_that_are_not_there_are_told_before_anything_starts(tmp_path: Path) -> None:
    asked = argparse.Namespace(rows=[tmp_path], base="nothing")
    with pytest.raises(SystemExit, match="no rows below"):
        make_asked(asked)
