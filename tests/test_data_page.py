"""Every example of docs/data.md: the command is run on the files shown, and gives the rows shown."""

import re
import shlex
from pathlib import Path

import pytest
from data_page import PAGE, Example, read_examples, write_files
from typer.testing import CliRunner

from embedtrain.cli import app
from embedtrain.data.convert.tasks import TASKS
from embedtrain.data.formats.table import FORMATS
from embedtrain.data.store import open_rows

EXAMPLES = list(read_examples())


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: example.command.split("rows/")[1].split()[0]
)
def test_the_command_gives_the_rows_shown(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, example.files)
    words = shlex.split(example.command)[1:]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    out = words[words.index("--out") + 1]
    assert list(open_rows(tmp_path / out)) == example.rows
    assert re.search(rf"{out}: {len(example.rows)} rows", done.output)


def test_every_format_and_task_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in (*FORMATS, *TASKS) if f"`{name}`" not in page] == []
    assert len(EXAMPLES) >= len(FORMATS)
