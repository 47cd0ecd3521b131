"""The gathers of public trainers: what docs/gradients.md says of them is measured."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from processes import run_on

from tools import gather_conventions
from tools.gather_conventions import Measured, compare, differences, gradients_here, wrong_ones

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    """All conventions on two gloo processes."""
    return compare(2, run_on(2, gradients_here)[0])


def of(measured: list[Measured], who: str, computes: str = "") -> Measured:
    [found] = [m for m in measured if m.who.startswith(who) and computes in m.computes]
    return found


def test_page_shows_what_is_measured(measured: list[Measured]) -> None:
    assert differences(measured) == []
    assert wrong_ones(measured) == []


def test_conventions_differ_as_derived(measured: list[Measured]) -> None:
    """The own slot gives 1/W, a factor on an exact gather W, local rows with the own slot a new direction."""
    assert of(measured, "DPR").ratio == pytest.approx(0.5, rel=1e-12)
    assert of(measured, "PyLate").ratio == pytest.approx(2, rel=1e-12)
    assert of(measured, "NeMo", "own slot").cosine < 0.99
    assert of(measured, "any of these").error > 0.1
    for who in ("Tevatron", "LLM2Vec", "sentence-transformers with", "embedtrain"):
        assert all(m.error < 1e-12 for m in measured if m.who.startswith(who)), who


def test_a_wrong_gradient_and_a_stale_page_are_told(
    measured: list[Measured], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = [replace(m, error=2e-12) for m in measured]
    assert wrong_ones(wrong)[0] == "embedtrain: relative error 2.0e-12 on 2 processes, at most 1e-12"
    page = tmp_path / "gradients.md"
    page.write_text(
        gather_conventions.PAGE.read_text("utf-8").replace("0.500 / 0.500", "0.501 / 0.500"), "utf-8"
    )
    monkeypatch.setattr(gather_conventions, "PAGE", page)
    [fault] = differences(measured)
    assert fault.endswith("shows 2 processes: '0.501 / 0.500', measured '0.500 / 0.500'")


@pytest.mark.slow
def test_the_tool_on_one_two_and_four_processes(tmp_path: Path) -> None:
    command = [sys.executable, "tools/gather_conventions.py", "--check", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("gather_conventions: passed")
