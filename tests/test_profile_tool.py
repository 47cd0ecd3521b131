"""`python tools/profile` on a tiny model: phases that add up to the step, operators, a trace."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_models import save_tiny

from tools.profile.phases import PHASES, Clock

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "rows" / "tests" / "faq"


def run_profile(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command on tiny texts."""
    small = ["--layers", "0", "--batch", "8", "--max-tokens", "32", "--chunk-tokens", "64", "--threads", "1"]
    return subprocess.run(
        [sys.executable, "tools/profile", *small, "--out", str(folder), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_step_is_told(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    rows = ROOT / "rows" / "pydoc" / "train.parquet"
    done = run_profile(tmp_path / "out", "--base", str(model), "--rows", str(rows), "--keep-tokens", "128")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert found["batch"]["rows"] == 8
    assert set(found["phases"]) <= set(PHASES)
    seconds = {name: one["seconds"] for name, one in found["phases"].items()}
    assert sum(seconds.values()) == pytest.approx(found["seconds"], rel=0.05)
    calls = {name: one["calls"] for name, one in found["phases"].items()}
    assert calls["encode, graphs kept"] == calls["backward, graphs kept"] > 0
    assert calls["encode, no graph"] == calls["encode again"] == calls["backward, encoded again"] > 0
    assert calls["objective"] == calls["clip"] == calls["optimizer"] == 1
    assert 0 < found["matmul_fraction"] < 1
    assert found["peak_growth_bytes"] >= 0
    assert str(tmp_path) not in (tmp_path / "out" / "profile.txt").read_text()
    assert "Where the time goes" in done.stdout
    events = json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    assert {f"phase: {name}" for name in calls} <= names


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = run_profile(tmp_path / "out", "--base", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "no such folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_inner_phase_stops_the_one_around_it() -> None:
    clock = Clock()
    with clock.phase("outer"):
        time.sleep(0.01)
        for _ in range(2):
            with clock.phase("inner"):
                time.sleep(0.05)
    assert clock.seconds["inner"] >= 0.1
    assert 0.01 <= clock.seconds["outer"] < 0.1
    assert clock.calls == {"outer": 1, "inner": 2}


def test_pythons_own_profile_is_found_beside_the_tools() -> None:
    """Programs in tools/ have that folder on their path, and torch.compile imports `profile`."""
    code = "import sys; sys.path.insert(0, 'tools'); import profile; print(profile.run.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "run", done.stderr
