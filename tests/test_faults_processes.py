"""One of two processes fails or hangs: all end, and one message says which, where and why."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulted_runs import (
    PATIENCE_SECONDS,
    is_alive,
    partial_of,
    place_of,
    run,
    start,
    steps_done,
    told,
    wait_until,
    write_run,
)
from killed_runs import rows

from embedtrain.places import read_places

NOISE = ("Traceback", "elastic", "ChildFailedError", "closing signal")


def messages(config: Path) -> list[str]:
    """Lines for the user."""
    return [line for line in told(config).splitlines() if line.startswith("embedtrain: ")]


def test_an_exception_on_one_process_ends_all_with_one_message(tmp_path: Path) -> None:
    config = write_run(tmp_path)
    child = start(config)
    folder = wait_until(config, child, lambda folder: steps_done(folder) > 2)
    pids = [place.pid for place in read_places(folder)]
    assert len(pids) == 2
    os.kill(place_of(folder, 1).pid, signal.SIGUSR2)
    assert child.wait(PATIENCE_SECONDS) == 2
    log = folder / "processes" / "failure-1.log"
    assert messages(config) == [
        f"embedtrain: stage 'tune' crashed in process 1 of 2: ValueError: planted; the traceback is in {log}",
        f"embedtrain: stage 'tune' (train) failed, see above; its folder is {folder}",
    ]
    assert not [word for word in NOISE if word in told(config)]
    assert log.read_text().startswith("Traceback")
    assert log.read_text().endswith("ValueError: planted\n")
    assert not any(map(is_alive, pids))


def test_a_stopped_process_is_named_and_killed(tmp_path: Path) -> None:
    config = write_run(tmp_path, machine={"timeout_seconds": 10})
    child = start(config)
    folder = wait_until(config, child, lambda folder: steps_done(folder) > 2)
    pids = [place.pid for place in read_places(folder)]
    os.kill(place_of(folder, 1).pid, signal.SIGSTOP)
    last = place_of(folder, 1)
    assert child.wait(PATIENCE_SECONDS) == 2
    assert not any(map(is_alive, pids))
    first, second = messages(config)
    found = re.fullmatch(
        r"embedtrain: stage 'tune': process 1 has not come (?:to|out of) '([a-z ]+)' of step (\d+) for 10 s; "
        r"it was last at (.*)",
        first,
    )
    assert found, first
    assert found[3] == last.describe()
    assert int(found[2]) in (last.step, (last.step or 0) + 1)
    assert second == f"embedtrain: stage 'tune' (train) failed, see above; its folder is {folder}"
    assert not [word for word in NOISE if word in told(config)]


def test_a_process_that_stops_mining_is_named_and_killed(tmp_path: Path) -> None:
    """Such processes send no messages: the other one waits for a file."""
    stage = {"name": "tune", "kind": "mine", "from": "base", "top_k": 5}
    config = write_run(tmp_path, stage, {"timeout_seconds": 6}, rows=rows(1100, 0))
    child = start(config)
    folder = wait_until(config, child, lambda folder: len(read_places(folder)) == 2)
    pids = [place.pid for place in read_places(folder)]
    os.kill(pids[1], signal.SIGSTOP)
    last = place_of(folder, 1)
    assert child.wait(PATIENCE_SECONDS) == 2
    assert not any(map(is_alive, pids))
    first, second = messages(config)
    stalled = f"stage 'tune': process 1 gives no sign of life for 6 s; it was last at {last.describe()}"
    assert first.startswith(f"embedtrain: {stalled}; process 0 waits for {folder}"), first
    assert second == f"embedtrain: stage 'tune' (mine) failed, see above; its folder is {folder}"
    assert not [word for word in NOISE if word in told(config)]


@pytest.mark.slow
def test_a_bad_row_is_told_once(tmp_path: Path) -> None:
    """Both processes read it; one of them tells."""
    config = write_run(tmp_path, {"steps": 40})
    rows = pq.read_table(tmp_path / "faq.parquet")
    queries = rows["query"].to_pylist()
    queries[7] = ""  # no command of ours writes such a row
    pq.write_table(rows.set_column(0, "query", pa.array(queries)), tmp_path / "faq.parquet")
    assert run(config) == 2
    first, second = messages(config)
    fault = "row 8: 'query': found blank text, expected a query"
    assert first == f"embedtrain: {tmp_path / 'faq.parquet'}: {fault}"
    assert second == f"embedtrain: stage 'tune' (train) failed, see above; its folder is {partial_of(config)}"
    assert not [word for word in NOISE if word in told(config)]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_by_a_run(tmp_path: Path) -> None:
    """A byte of the newest is another; the run says so, and goes on from the one before."""
    config = write_run(tmp_path, {"keep_last": 9}, {"num_processes": 1})
    folder = stop_when(config, lambda folder: len(saved(folder)) > 2)
    *_, older, newest = saved(folder)
    content = bytearray((newest / "parameters.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "parameters.safetensors").write_bytes(content)
    stop_when(config, lambda folder: "passed over" in told(config) and steps_done(folder) > 20)
    assert f"{newest}: passed over, parameters.safetensors is damaged\n" in told(config)
    assert f"train tune from step {int(older.name[5:])}" in told(config)


def saved(folder: Path) -> list[Path]:
    """Checkpoints in order."""
    return sorted((folder / "checkpoints").glob("step-*"))


def stop_when(config: Path, ready: Callable[[Path], bool]) -> Path:
    """Run, and stop as a person would; the stage's folder."""
    child = start(config)
    folder = wait_until(config, child, ready)
    child.send_signal(signal.SIGTERM)
    assert child.wait(PATIENCE_SECONDS) == 75, told(config)
    return folder


@pytest.mark.slow
def test_a_killed_process_is_named(tmp_path: Path) -> None:
    """Nobody catches SIGKILL, which the kernel sends where memory is short."""
    config = write_run(tmp_path)
    child = start(config)
    folder = wait_until(config, child, lambda folder: steps_done(folder) > 2)
    os.kill(place_of(folder, 1).pid, signal.SIGKILL)
    assert child.wait(PATIENCE_SECONDS) == 2
    first, second = messages(config)
    assert re.fullmatch(
        r"embedtrain: stage 'tune': process 0 waits in '[a-z ]+' of step \d+, and has lost process 1, which "
        r"was last at step \d+ '[a-z ]+'",
        first,
    )
    assert second == f"embedtrain: stage 'tune' (train) failed, see above; its folder is {folder}"
    assert not [word for word in NOISE if word in told(config)]
    assert partial_of(config).exists()
