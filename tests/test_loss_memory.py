"""The tool that measures the memory of a streamed InfoNCE, at a small size."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.loss_memory import judge

ROOT = Path(__file__).resolve().parent.parent


def test_streamed_needs_less_than_direct(tmp_path: Path) -> None:
    """A matrix of scores is 33 MB here, and a chunk's 0.8 MB."""
    size = ["1024", "8192", "64"]
    command = [sys.executable, "tools/loss_memory.py", "--terms", "full", "--out", str(tmp_path / "out.json")]
    command += ["--size", *size, "--direct-size", *size, "--chunk", "200000", "--stream-above", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("loss_memory: passed")
    found = json.loads((tmp_path / "out.json").read_text())
    extra = {figure["path"]: figure["extra_bytes"] for figure in found["figures"]}
    assert extra["direct"] > 3 * found["figures"][0]["matrix_bytes"]
    assert 0 < extra["streamed"] < extra["direct"] / 3
    assert all(0 < d["gradients"] < 1e-5 and d["loss"] < 1e-5 for d in found["differences"].values())


def test_what_is_above_its_bound_is_told() -> None:
    figure: dict[str, Any] = {"term": "plain", "extra_bytes": 1_200_000_000}
    assert judge([figure], {"full": {"loss": 1e-7, "gradients": 2e-5}}) == [
        "plain: peak extra 1,200 MB, at most 1,000",
        "full: gradients of the paths differ by 2.0e-05, at most 1e-05",
    ]
    assert judge([figure | {"extra_bytes": 10}], {"full": {"loss": float("nan")}}) == [
        "full: loss of the paths differ by nan, at most 1e-05"
    ]
