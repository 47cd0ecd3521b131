"""The tool that holds N processes to one: on a few cases, and seen to fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedtrain.config.objective import Objective
from embedtrain.loss.objective import TERMS
from tools.gradient_parity import FEW, Compared, case_of
from tools.parity_cases import OBJECTIVES

ROOT = Path(__file__).resolve().parent.parent


def run_tool(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "tools/gradient_parity.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def kinds(settings: Objective) -> set[str]:
    return {term.kind for term in settings.terms}


def test_every_kind_of_term_is_a_case() -> None:
    alone = [kinds(settings) for settings in OBJECTIVES.values() if len(settings.terms) == 1]
    assert set.union(*alone) == set(TERMS)
    everything = OBJECTIVES["everything"]
    assert kinds(everything) == set(TERMS)
    text = everything.model_dump_json(exclude_none=True)
    for name in ("focal", "mixing", "matryoshka", "minimum", "projection"):
        assert f'"{name}":' in text
    assert len(case_of(FEW)[1]) < 4 <= len(case_of("everything")[1])


def test_a_cell_passes_within_its_bound_alone() -> None:
    def passed(dtype: str, loss_error: float, gradient_error: float) -> bool:
        return Compared("infonce", "lora", dtype, "plain", 2, loss_error, gradient_error).passed

    assert passed("float64", 1e-13, 1e-13)
    assert not passed("float64", 2e-12, 1e-13)
    assert not passed("float64", 1e-13, 2e-12)
    assert passed("float32", 2e-12, 2e-12)
    assert not passed("float32", 0.0, float("nan"))


def test_two_processes(tmp_path: Path) -> None:
    """The wrong gather is exact on one process, and a term of the rows alone needs no gather."""
    out = str(tmp_path / "out.json")
    asked = ("--processes", "1", "2", "--dtypes", "float64", "--out", out)
    code, text = run_tool(*asked, "--cases", "infonce", "margin_mse", "--wrong-gather")
    assert code == 1, text
    assert text.splitlines()[-1].startswith("gradient_parity: 4 of 12 FAILED")
    cells = json.loads(Path(out).read_text())["cells"]
    failed = [cell for cell in cells if cell["gradient_error"] > 1e-12]
    assert {(cell["case"], cell["processes"]) for cell in failed} == {("infonce", 2)}
    assert min(cell["gradient_error"] for cell in failed) > 0.1
    assert max(cell["loss_error"] for cell in cells) < 1e-12


@pytest.mark.slow
def test_many_terms_on_four_processes(tmp_path: Path) -> None:
    code, text = run_tool(
        "--processes", "4", "--cases", "everything", FEW, "--out", str(tmp_path / "out.json")
    )
    assert code == 0, text
    assert text.splitlines()[-1].startswith("gradient_parity: all 16 passed")
