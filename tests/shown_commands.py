"""Every command and every Python snippet that README.md, docs/ and --help show.

What a page shows is executed as it stands, in the order of the page, in a folder that holds what is named
(`shown_place.py`). Lists in `shown_ways.py` say what is not, and why.
"""

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from embedtrain.cli import app

ROOT = Path(__file__).resolve().parent.parent
HELP = "--help"
BLOCK = re.compile(
    r"^```(?P<kind>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$"
    r"|(?<=\n\n)(?P<indented>(?:    (?:embedtrain|python|make) [^\n]*\n)+)"
    r"|(?<!`)`(?P<inline>[^`]+)`(?!`)",
    re.MULTILINE | re.DOTALL,
)
PROGRAM = re.compile(r"(embedtrain|make|python|pip install|\.ci/run)( \S|$)")


@dataclass(frozen=True)
class Shown:
    """A command line, a Python snippet, or a file that a page shows."""

    page: str
    kind: str
    text: str
    title: str = ""


def pages() -> list[Path]:
    """README.md and all pages of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown_on(page: Path, root: Path = ROOT) -> Iterator[Shown]:
    """What a page shows, in its order: files before the commands that read them."""
    name, text = page.relative_to(root).as_posix(), page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        kind, title = found["kind"], found["title"] or ""
        if found["inline"] is not None:
            line = " ".join(found["inline"].split())
            if PROGRAM.match(line) and is_whole(line):
                yield Shown(name, "command", line)
        elif found["indented"] is not None or kind in ("sh", "bash", "console"):
            for line in command_lines(found["indented"] or found["text"]):
                yield Shown(name, "command", line)
        elif "." in title:
            yield Shown(name, "file", found["text"], title)
        elif kind == "python":
            yield Shown(name, "python", found["text"])


def shown_in_help() -> Iterator[Shown]:
    """The examples that the help of each command ends in."""
    for command in app.registered_commands:
        for line in re.findall(r"`(embedtrain [^`]+)`", command.epilog or ""):
            yield Shown(HELP, "command", line)


def command_lines(block: str) -> Iterator[str]:
    """The command lines of a block, continued lines joined, comments dropped."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
        if words:
            yield shlex.join(words)


def is_whole(line: str) -> bool:
    """Whether code between words is a command, and not just the name of one or of its options."""
    program, *words = shlex.split(line)
    if program != "embedtrain":
        return line != "python -m torch.distributed.run"  # what a run starts, not what a user does
    group = get_command(app)
    context = group.make_context("embedtrain", words[:1], resilient_parsing=True)
    try:
        name, command, rest = group.resolve_command(context, words)
        command.make_context(name, list(rest), parent=context)
    except Exception:  # what typer raises is click's or its own, by its version
        return False
    return True


def perform(line: str) -> str:
    """Execute a command line in the working directory, in this process where it is Python of ours."""
    match shlex.split(line):
        case ["embedtrain", *words]:
            done = CliRunner().invoke(app, words, catch_exceptions=False)
            assert done.exit_code == 0, f"{line}\n{done.output}"
            return done.output
        case ["python", "-m", module, *words]:
            run_python(line, module, words, as_module=True)
        case ["python", script, *words]:
            run_python(line, script, words, as_module=False)
        case words:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            return done.stdout
    return ""


def run_python(line: str, name: str, words: list[str], *, as_module: bool) -> None:
    """Run a module or a script as the main program, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *words])
        code: object = None
        try:
            (runpy.run_module if as_module else runpy.run_path)(name, run_name="__main__")
        except SystemExit as end:
            code = end.code
        assert not code, f"{line}: exit {code}"
