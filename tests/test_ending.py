"""How commands and tools end: with a status, and with one message for what went wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from embedtrain.cli.ending import end
from embedtrain.config.errors import UserError
from embedtrain.stops import RESUME_CODE, Stopped

ROOT = Path(__file__).parent.parent


def interrupted() -> None:
    raise KeyboardInterrupt


def fail(error: UserError) -> None:
    raise error


@pytest.mark.parametrize("status", [None, 0, 1])
def test_what_went_well_ends_with_its_status(status: int | None) -> None:
    with pytest.raises(SystemExit) as ending:
        end(lambda: status)
    assert ending.value.code == status


def test_a_mistake_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        end(lambda: fail(UserError("no https://me:secret@host/rows")))
    assert ending.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("embedtrain: no https://")
    assert "secret" not in told


def test_a_stop_and_an_interruption_have_their_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        end(lambda: fail(Stopped("saved")))
    assert ending.value.code == RESUME_CODE
    with pytest.raises(SystemExit) as ending:
        end(interrupted)
    assert ending.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["compare_negatives.py", "--machine", "nothing.yaml"],
        ["compare_soups.py", "--machine", "nothing.yaml"],
        ["run_recipe.py", "nothing.yaml"],
    ],
    ids=lambda words: words[0],
)
def test_tools_tell_a_mistake_as_commands_do(words: list[str]) -> None:
    command = [sys.executable, str(ROOT / "tools" / words[0]), *words[1:]]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "embedtrain: nothing.yaml: no such file\n")
