"""A run of mine, score and select on tiny models: a program that is killed with all its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from endpoint_server import Server
from tiny_models import TEXTS, save_tiny

from embedtrain.data.rows import Row, write_rows

PATIENCE_SECONDS = 600


def write_run(folder: Path, name: str, server: Server) -> Path:
    """The run file of a run below `folder/NAME`; models and rows are shared by all runs of the folder."""
    if not (folder / "model").exists():
        save_tiny("llama", folder / "model", head=True)
        write_rows(folder / "long.parquet", rows(1100, 0))
        write_rows(folder / "short.parquet", rows(90, 1))
    endpoint = {
        "kind": "endpoint",
        "protocol": "tei",
        "url": server.url,
        "texts_per_request": 8,
        "timeout_seconds": 300.0,
    }
    content = {
        "name": "r",
        "folder": str(folder / name),
        "base": {"model": str(folder / "model")},
        "sources": {one: {"rows": str(folder / f"{one}.parquet")} for one in ("long", "short")},
        "stages": [
            {
                "name": "mined",
                "kind": "mine",
                "from": "base",
                "retrievers": [{"kind": "bm25"}, endpoint | {"name": "remote"}],
                "top_k": 5,
            },
            {
                "name": "scored",
                "kind": "score",
                "candidates": "mined",
                "teachers": [
                    endpoint | {"name": "reranker", "gives": "scores"},
                    {"kind": "likelihood", "model": str(folder / "model")},
                ],
                "ensembles": [{"kind": "mean", "name": "both", "of": ["reranker", "likelihood"]}],
                "first_candidates": 3,
            },
            {
                "name": "chosen",
                "kind": "select",
                "candidates": "mined",
                "scores": "scored",
                "rules": [{"kind": "perc_pos", "judge": "both"}],
                "num_negatives": 3,
                "last_rank": 9,
                "soft_labels": "likelihood",
            },
        ],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def rows(num: int, seed: int) -> list[Row]:
    """Queries and documents of a few words, some of them in several rows, some with stored negatives."""
    words = " ".join(TEXTS).split()
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(words, rng.integers(3, 9))) for _ in range(num)]
    lines = []
    for number, text in enumerate(texts):
        others = tuple(texts[place] for place in rng.integers(0, num, 2))
        query = " ".join(text.split()[:3]) + f" {number % 700}"
        lines.append(Row(query, (text,), others if number % 3 == 0 else ()))
    return lines


def start(config: Path, num_processes: int = 1) -> subprocess.Popen[bytes]:
    """`embedtrain run CONFIG` on so many processes of one thread; its output goes into a file beside."""
    machine = config.with_name(f"{num_processes}.machine.yaml")
    settings = {"device": "cpu", "num_processes": num_processes, "threads": 1, "encode_tokens": 64}
    machine.write_text(yaml.safe_dump(settings))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "embedtrain", "run", str(config), "--machine", str(machine)]
    with config.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def finish(config: Path, num_processes: int = 1) -> dict[str, dict[str, Any]]:
    """Run to the end; `done.json` of every stage."""
    child = start(config, num_processes)
    try:
        assert child.wait(PATIENCE_SECONDS) == 0, config.with_suffix(".log").read_text()[-4000:]
    except subprocess.TimeoutExpired:
        kill(child)
        raise
    root = root_of(config)
    return {path.parent.name[:-9]: json.loads(path.read_text()) for path in root.glob("*/done.json")}


def kill_when(config: Path, num_processes: int, ready: Callable[[Path], bool]) -> Path:
    """Start, and kill every process of it as soon as `ready(root)`; the run's folder."""
    child = start(config, num_processes)
    until = time.monotonic() + PATIENCE_SECONDS
    while not ready(root_of(config)):
        assert child.poll() is None, config.with_suffix(".log").read_text()[-4000:]
        assert time.monotonic() < until
        time.sleep(0.002)
    kill(child)
    return root_of(config)


def kill(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all below it; they are stopped first, so that none starts another."""
    known: list[int] = []
    while new := [pid for pid in [child.pid, *below([child.pid, *known])] if pid not in known]:
        for pid in new:
            os.kill(pid, signal.SIGSTOP)
        known += new
    for pid in known:
        os.kill(pid, signal.SIGKILL)
    child.wait()
    while any(state_of(pid) not in ("", "Z") for pid in known):
        time.sleep(0.01)


def below(pids: list[int]) -> list[int]:
    """Children of the processes, and theirs."""
    parents = {int(path.name): parent_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found = list(pids)
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found[len(pids) :]


def stat_of(pid: int) -> list[str]:
    """State, parent and more of a process; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state_of(pid: int) -> str:
    return (stat_of(pid) or [""])[0]


def parent_of(pid: int) -> int:
    return int((stat_of(pid) or ["", "0"])[1])


def root_of(config: Path) -> Path:
    """Where the run's stages are."""
    return config.with_suffix("") / "r"


def outputs(config: Path) -> dict[str, bytes]:
    """Every file that a finished run is read for, by its path in the run's folder."""
    root = root_of(config)
    names = ("*.parquet", "*.npy", "reasons.json", "mining.html")
    paths = {path for name in names for path in root.glob(f"*-*/**/{name}")}
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(paths)}
