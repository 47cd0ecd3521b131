"""docs/resume.md: the SLURM script, with stand-ins for `embedtrain` and `scontrol`."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from shown_commands import ROOT, shown_on

RUN = """#!/bin/bash
trap 'sleep 0.2; exit {code}' USR1 TERM
touch started
while true; do sleep 0.02; done
"""
REQUEUE = """#!/bin/bash
echo "$@" >> requeued
"""


@pytest.mark.parametrize(
    ("number", "code", "requeued"),
    [(signal.SIGUSR1, 75, "requeue 17\n"), (signal.SIGTERM, 75, ""), (signal.SIGUSR1, 2, "")],
    ids=["out of time", "cancelled", "failed"],
)
def test_the_job_is_queued_again(tmp_path: Path, number: signal.Signals, code: int, requeued: str) -> None:
    """Where it was out of time and can go on; the script ends with the run's code."""
    [script] = [one for one in shown_on(ROOT / "docs" / "resume.md") if one.title == "requeue.sbatch"]
    (tmp_path / "job").write_text(script.text)
    for name, text in (("embedtrain", RUN.format(code=code)), ("scontrol", REQUEUE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    job = subprocess.Popen(["bash", "job"], cwd=tmp_path, env=environment)
    until = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    job.send_signal(number)
    assert job.wait(60) == code
    said = tmp_path / "requeued"
    assert (said.read_text() if said.exists() else "") == requeued
