"""What a signal does to a run: a training is asked to save, other work is killed, the code says resume."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from embedtrain.artifacts import write_json
from embedtrain.pipeline import stopping
from embedtrain.pipeline.stopping import Work, at_work, stop_between
from embedtrain.places import FOLDER, Failure
from embedtrain.stops import RESUME_CODE, STOP, STOPPABLE, Stopped, hearing
from tools.killed import Attempt, How, write_inputs

SECONDS = 60
CHILD = """
import pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
(folder / "blocked").write_text(" ".join(sorted(signal.Signals(number).name for number in blocked)))
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / "below").write_text(str(below.pid))
if sys.argv[2] == "trains":
    (folder / ".stoppable").touch()
(folder / "ready").touch()
while not (folder / ".stop").exists() or len(sys.argv) > 3:
    time.sleep(0.01)
below.kill()
"""


def signal_when(ready: Path, *numbers: signal.Signals) -> threading.Thread:
    """Send signals to this process, one after the other, once a file is there."""

    def send() -> None:
        until = time.monotonic() + SECONDS
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def work_in(folder: Path, *words: str, signals: tuple[signal.Signals, ...]) -> tuple[int, Work]:
    """The exit code of a stage that is a small program, which gets the signals."""
    (folder / STOP).touch()  # left by a run that was killed
    thread = signal_when(folder / "ready", *signals)
    with at_work([sys.executable, "-c", CHILD, str(folder), *words], folder) as work:
        code = work.child.wait()
    thread.join()
    return code, work


def is_dead(pid: int) -> bool:
    """Whether there is no such process, or only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_training_is_asked(tmp_path: Path, number: signal.Signals) -> None:
    """By a file, and it ends by itself; the child hears no signal before it wants to."""
    before = signal.getsignal(number)
    code, work = work_in(tmp_path, "trains", signals=(number,))
    assert (code, work.asked) == (0, True)
    assert (tmp_path / "blocked").read_text() == "SIGINT SIGTERM SIGUSR1"
    assert (tmp_path / STOP).exists()  # other nodes look for it
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("words", "signals"),
    [(("mines",), (signal.SIGTERM,)), (("trains", "on"), (signal.SIGUSR1, signal.SIGUSR1))],
    ids=["other work", "the second signal"],
)
def test_it_is_killed_with_all_below(
    tmp_path: Path, words: tuple[str, ...], signals: tuple[signal.Signals, ...]
) -> None:
    code, work = work_in(tmp_path, *words, signals=signals)
    assert (code, work.asked) == (-signal.SIGKILL, True)
    assert (tmp_path / STOPPABLE).exists() == (words[0] == "trains")
    below = int((tmp_path / "below").read_text())
    until = time.monotonic() + SECONDS
    while not is_dead(below):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_saves_nothing_is_killed_where_another_node_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what an earlier start has left is no such request, nor a failure of this one."""
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.5)
    (tmp_path / STOP).touch()
    old = Failure(rank=0, message="it failed", code=2, time=1.0)
    write_json(tmp_path / FOLDER / "failure-0.json", asdict(old))
    with at_work([sys.executable, "-c", CHILD, str(tmp_path), "mines", "on"], tmp_path, follows=True) as work:
        asks = threading.Timer(3, lambda: os.utime(tmp_path / STOP))
        asks.start()
        started = time.monotonic()
        assert work.wait() == -signal.SIGKILL
        assert time.monotonic() - started > 3
    assert (work.asked, work.was_asked()) == (False, True)
    asks.join()


def test_between_stages_it_stops_at_once() -> None:
    with pytest.raises(Stopped) as error, hearing(stop_between):
        signal.raise_signal(signal.SIGUSR1)
    assert str(error.value) == "stopped; the same command goes on from where it was"
    assert error.value.code == RESUME_CODE == 75


@pytest.mark.parametrize("processes", [1, 2])
def test_all_die_with_the_run(tmp_path: Path, processes: int) -> None:
    """SIGKILL to the run alone: nothing goes on in the folder, which the same command may work in at once."""
    write_inputs(tmp_path)
    attempt = Attempt(tmp_path, "orphaned", How(processes, steps=100_000, stages=1))
    attempt.start()
    assert attempt.wait(lambda: attempt.lines() >= 3) is None, attempt.log.read_text()
    below = psutil.Process(attempt.child.pid).children(recursive=True)
    assert len(below) >= processes
    attempt.child.kill()
    attempt.child.wait()
    assert psutil.wait_procs(below, timeout=SECONDS)[1] == []


STARTS = """
import subprocess, sys, time
from embedtrain.stops import as_its_starter
WORKS = "import time, embedtrain.stops; embedtrain.stops.die_with_starter(); print(); time.sleep(99)"
environment = as_its_starter() if sys.argv[1] == "bound" else None
child = subprocess.Popen([sys.executable, "-c", WORKS], env=environment, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(99)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
@pytest.mark.parametrize("how", ["bound", "by hand"])
def test_only_what_a_run_started_dies_with_it(how: str) -> None:
    """A stage that was started by hand outlives its shell."""
    with subprocess.Popen([sys.executable, "-c", STARTS, how], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    gone, alive = psutil.wait_procs([child], timeout=SECONDS if how == "bound" else 1)
    for process in alive:
        process.kill()
    assert (gone, alive) == (([child], []) if how == "bound" else ([], [child]))


@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGUSR1), (2, signal.SIGTERM)])
def test_a_run_ends_with_75_and_one_line(tmp_path: Path, processes: int, number: signal.Signals) -> None:
    """A real run under its launcher: a checkpoint of its last step, no traceback."""
    write_inputs(tmp_path)
    attempt = Attempt(tmp_path, "asked", How(processes, steps=100_000, stages=1))
    attempt.start()
    assert attempt.wait(lambda: attempt.lines() >= 3) is None, attempt.log.read_text()
    attempt.child.send_signal(number)
    assert attempt.child.wait(SECONDS * 5) == 75
    said = attempt.log.read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1] == (
        "embedtrain: stage 'adapted' (train) stopped; the same command goes on from where it was"
    )
    [stage] = attempt.root.glob("adapted-*.partial")
    checkpoint = stage / "checkpoints" / f"step-{attempt.lines():06d}"
    assert (checkpoint / "done.json").is_file()
    assert not (stage / STOPPABLE).exists()
    started = [line for line in subprocess.getoutput("ps -A -o args").splitlines() if str(tmp_path) in line]
    assert started == []
