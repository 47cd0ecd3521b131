"""Broken configs and rows, and the exact words a user reads: `tests/broken/x.yaml` must give `x.txt`.

The first line of a case may give more arguments: `# embedtrain check x.yaml --set a=b --machine m`.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from embedtrain.config.check import read_config
from embedtrain.config.errors import UserError
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import read_rows
from embedtrain.templates import validate_template

FOLDER = Path(__file__).parent / "broken"
VALID = "valid.yaml"
CONFIGS = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != VALID)
ROWS = sorted(path.name for path in (FOLDER / "rows").iterdir() if path.suffix != ".txt")
THROUGH_THE_COMMAND = ("unknown_key.yaml", "many_at_once.yaml", "yaml_tab.yaml", "machine_file.yaml")


def arguments(name: str) -> list[str]:
    """The arguments of `embedtrain check` for a case."""
    first = (FOLDER / name).read_bytes().split(b"\n")[0].decode("utf-8", "replace")
    given = shlex.split(first.removeprefix("# embedtrain check "))[1:] if "embedtrain check" in first else []
    return [name, *given]


def message(name: str) -> str:
    """What the check says of a case; empty where it says nothing."""
    config, *rest = arguments(name)
    options = list(zip(rest[::2], rest[1::2], strict=True))
    overrides = [value for option, value in options if option == "--set"]
    machine = next((value for option, value in options if option == "--machine"), None)
    try:
        read_config(config, overrides, machine, count_rows=count_rows, validate_template=validate_template)
    except UserError as error:
        return f"{error}\n"
    return ""


def expected(name: str) -> str:
    return (FOLDER / name).with_suffix(".txt").read_text(encoding="utf-8")


def test_the_unbroken_config_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case is this file with one thing changed, so that what is told is what was changed."""
    monkeypatch.chdir(FOLDER)
    assert message(VALID) == ""


def test_there_are_many_cases() -> None:
    assert len(CONFIGS) + len(ROWS) >= 30
    told = {path.stem for path in FOLDER.rglob("*.txt")}
    assert told == {Path(name).stem for name in CONFIGS + ROWS}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_is_refused_in_these_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    assert message(name) == expected(name)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_refused_in_these_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER / "rows")
    with pytest.raises(UserError) as caught:
        read_rows(name)
    assert f"{caught.value}\n" == expected(f"rows/{name}")


def test_a_config_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(UserError) as caught:
        read_config("vallid.yaml", count_rows=count_rows, validate_template=validate_template)
    assert str(caught.value) == "vallid.yaml: no such file; did you mean 'valid.yaml'?"


@pytest.mark.parametrize("name", THROUGH_THE_COMMAND)
def test_command_says_so_without_a_traceback(name: str) -> None:
    done = check(*arguments(name))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.removeprefix("embedtrain: ") == expected(name)


def test_command_passes_the_unbroken_config() -> None:
    done = check(VALID)
    assert (done.returncode, done.stderr) == (0, "")


def check(*given: str) -> subprocess.CompletedProcess[str]:
    """`embedtrain check` in a process of its own, in the folder of the cases."""
    command = [sys.executable, "-m", "embedtrain", "check", *given]
    here = {**os.environ, "PYTHONPATH": str(FOLDER.parent.parent)}
    return subprocess.run(command, cwd=FOLDER, env=here, capture_output=True, text=True, check=False)
