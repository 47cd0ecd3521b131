"""A run of one train stage on a tiny model: a program that faults are injected into while it runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from tiny_models import save_tiny
from training import sources

from embedtrain.data.rows import Row, write_rows
from embedtrain.places import Place, read_places

PATIENCE_SECONDS = 400
PLANT = """
import os, signal
def plant(number, frame):
    raise ValueError("planted")
if os.environ.get("RANK") == "1":
    signal.signal(signal.SIGUSR2, plant)
"""
"""What Python runs first on the second process: a signal becomes an exception, wherever it is."""


def write_run(
    folder: Path,
    stage: dict[str, object] | None = None,
    machine: dict[str, object] | None = None,
    rows: list[Row] | None = None,
    place: Path | None = None,
) -> Path:
    """The run file; the stage trains for as long as nobody stops it, or as `stage` says, below `place`.

    A `stage` with a kind is the stage itself.
    """
    save_tiny("llama", folder / "model")
    write_rows(folder / "faq.parquet", rows or sources()["faq"])
    settings = {
        "name": "tune",
        "kind": "train",
        "objective": {"terms": [{"kind": "infonce", "temperature": 0.1}]},
        "batch_size": 6,
        "steps": 1_000_000,
        "save_every_steps": 4,
        "diagnostics_every_steps": 0,
        "lr": 1.0e-4,
    }
    content = {
        "name": "r",
        "folder": str((place or folder) / "runs"),
        "base": {"model": str(folder / "model")},
        "sources": {"faq": {"rows": str(folder / "faq.parquet")}},
        "stages": [stage if stage and "kind" in stage else settings | (stage or {})],
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    device = {"device": "cpu", "num_processes": 2, "threads": 1, "chunk_tokens": 256}
    (folder / "machine.yaml").write_text(yaml.safe_dump(device | (machine or {})))
    (folder / "plant").mkdir()
    (folder / "plant" / "sitecustomize.py").write_text(PLANT)
    return path


def start(config: Path) -> subprocess.Popen[bytes]:
    """`embedtrain run`; what it tells goes into a file beside."""
    paths = os.pathsep.join([str(config.with_name("plant")), str(Path(__file__).parent.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    machine = str(config.with_name("machine.yaml"))
    command = [sys.executable, "-m", "embedtrain", "run", str(config), "--machine", machine]
    with config.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def told(config: Path) -> str:
    """What the run has told so far."""
    return config.with_suffix(".log").read_text()


def run(config: Path) -> int:
    """Run to the end; the exit code."""
    return start(config).wait(PATIENCE_SECONDS)


def root_of(config: Path) -> Path:
    """Where the stages are."""
    return Path(yaml.safe_load(config.read_text())["folder"]) / "r"


def partial_of(config: Path) -> Path:
    """The folder of the unfinished stage."""
    [folder] = root_of(config).glob("tune-*.partial")
    return folder


def wait_until(config: Path, child: subprocess.Popen[bytes], ready: Callable[[Path], bool]) -> Path:
    """The stage's folder, as soon as it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(root_of(config).glob("tune-*.partial")) or not ready(partial_of(config)):
        assert child.poll() is None, told(config)
        assert time.monotonic() < deadline, told(config)
        time.sleep(0.01)
    return partial_of(config)


def steps_done(folder: Path) -> int:
    """Steps in the curve."""
    curve = folder / "curve.jsonl"
    return curve.read_bytes().count(b"\n") if curve.exists() else 0


def place_of(folder: Path, rank: int) -> Place:
    """Where a process is."""
    return next(place for place in read_places(folder) if place.rank == rank)


def is_alive(pid: int) -> bool:
    """Whether a process runs, or is stopped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def curve_steps(folder: Path) -> list[int]:
    """Steps of the curve, in order."""
    return [json.loads(line)["step"] for line in (folder / "curve.jsonl").read_text().splitlines()]
