"""What a person sees of a run: on a terminal of 80 columns, in a log, and with --quiet."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import yaml
from killed_runs import rows
from tiny_models import save_tiny

from embedtrain.data.rows import write_rows
from embedtrain.show.stage_lines import finished, started

LOOP = """
from embedtrain.show.progress import progress
with progress("train finetune from step 1200", total=123456, unit="step") as bar:
    for step in range(3):
        bar.advance(1, loss=12.54505, lr=0.0003333, source="natural_questions_with_hard_negatives")
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def on_terminal(*words: str, columns: int = 80) -> str:
    """What a command writes to a terminal so wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    command = subprocess.Popen([sys.executable, *words], stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # nobody holds the other end any more
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert command.wait() == 0, written
    return written.decode()


def test_a_bar_fits_a_terminal() -> None:
    """The title, the bar, the end time and the latest figures, on two lines that never wrap."""
    lines = [ESCAPES.sub("", line) for line in on_terminal("-c", LOOP).splitlines()]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("train finetune from step 1200 ━━━") for line in lines)
    last = [line for line in lines if line.startswith("3/123,456 steps")][-1]
    assert re.fullmatch(r"3/123,456 steps, .* left  loss 12\.55  lr 0\.0003333  .*…", last), last


def test_stage_lines() -> None:
    stages = [("mined", "mine"), ("tuned", "train"), ("out", "export")]
    assert started(stages, 1, ["out"]) == "▶ tuned (train), 2 of 3; then out"
    assert started(stages, 2, []) == "▶ out (export), 3 of 3"
    record = {"seconds": 123.4, "facts": {"last_loss": 0.12345, "tokens_per_second": 812.0, "steps": 9}}
    assert finished("tuned", "train", record) == "✓ tuned (train) 2:03 min  loss 0.1235  tokens/s 812"
    assert finished("out", "export", {"seconds": 4.0, "facts": {}}) == "✓ out (export) 4 s"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of two stages that need no weights."""
    save_tiny("llama", tmp_path / "base")
    write_rows(tmp_path / "rows.parquet", rows(30, 0))
    bm25 = {"kind": "mine", "from": "base", "retrievers": [{"kind": "bm25"}], "top_k": 3}
    content = {
        "name": "r",
        "folder": str(tmp_path / "runs"),
        "base": {"model": str(tmp_path / "base")},
        "sources": {"one": {"rows": str(tmp_path / "rows.parquet")}},
        "stages": [
            {"name": "first", **bm25},
            {"name": "chosen", "kind": "select", "candidates": "first", "num_negatives": 1, "last_rank": 3},
        ],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "run.yaml"


def embedtrain(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embedtrain", *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_log_has_plain_lines_and_quiet_has_none(config: Path) -> None:
    """The first stage aloud, the second in silence."""
    loud = embedtrain("run", str(config), "--until", "first")
    assert loud.returncode == 0, loud.stderr
    lines = loud.stdout.splitlines()
    assert "▶ first (mine), 1 of 2" in lines
    assert [line for line in lines if re.fullmatch(r"✓ first \(mine\) \d+ s", line)]
    assert "\x1b" not in loud.stdout + loud.stderr
    silent = embedtrain("run", str(config), "--quiet")
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")
    assert len(list(config.parent.glob("runs/r/chosen-????????/done.json"))) == 1


def test_errors_are_told_in_silence(tmp_path: Path) -> None:
    run = embedtrain("run", str(tmp_path / "absent.yaml"), "--quiet")
    assert (run.returncode, run.stdout) == (2, "")
    assert "absent.yaml" in run.stderr
    stage = embedtrain("stage", str(tmp_path), EMBEDTRAIN_QUIET="1")
    assert stage.returncode == 2
    assert stage.stderr == (
        f"embedtrain: {tmp_path}: no stage.json there; stage folders are made by `embedtrain run`\n"
    )
