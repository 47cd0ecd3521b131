"""A tiny run that is killed and started again: what it is made of, when to kill it, what it leaves."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_models import TEXTS, save_tiny  # noqa: E402

from embedtrain.artifacts import CHECKPOINTS, hash_file  # noqa: E402
from embedtrain.data.rows import Row, write_rows  # noqa: E402
from embedtrain.pipeline.stopping import freeze  # noqa: E402
from embedtrain.stops import STOPPABLE  # noqa: E402
from embedtrain.train.log import CURVE, OF_MACHINE, Figures, read_curve  # noqa: E402

POLL_SECONDS = 0.001
WRITING = "writing a checkpoint"
Ready = Callable[[], bool]


@dataclass(frozen=True)
class How:
    """Of each run: its processes, the steps of a train stage, and how many of the stages it does."""

    processes: int = 2
    steps: int = 20
    stages: int = 4


def write_inputs(place: Path) -> None:
    """The model, the rows and the validation data of all runs."""
    save_tiny("llama", place / "base", attention_dropout=0.1)
    words = sorted(set(" ".join(TEXTS).split()))
    draw = random.Random(0)
    for name, count in (("one", 30), ("two", 20)):
        picked = [draw.sample(words, 8) for _ in range(count)]
        rows = [
            Row(" ".join(some[:4]), (" ".join(some[2:7]),), (" ".join(some[::-1]), f"{some[0]} {number}"))
            for number, some in enumerate(picked)
        ]
        write_rows(place / f"{name}.parquet", rows)
    asked = [draw.sample(words, 6) for _ in range(12)]
    lines = [{"query": " ".join(some[:4]), "pos": [" ".join(some[2:])]} for some in asked]
    (place / "held.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run_of(place: Path, name: str, how: How) -> dict[str, Any]:
    """The run file's content."""
    train = {
        "kind": "train",
        "objective": {"terms": [{"kind": "infonce", "temperature": 0.1, "mixing": [{"kind": "pair"}]}]},
        "batch_size": 6,
        "num_negatives": 2,
        "steps": how.steps,
        "lr": 3e-3,
        "save_every_steps": 3,
        "diagnostics_every_steps": 4,
        "validation": {"data": [str(place / "held.jsonl")], "every_steps": 4, "keep_best": True},
    }
    adapters = {"tuning": "lora", "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
    stages: list[dict[str, Any]] = [
        {"name": "adapted", **train, **adapters},
        {"name": "tuned", **train, "from": "adapted", "tuning": "full", "lr": 1e-3},
        {"name": "out", "kind": "export", "from": "tuned", "num_parity_texts": 8},
        {
            "name": "taught",
            "kind": "distil",
            "teacher": {"kind": "model", "model": "out"},
            "held_out_texts": 12,
            "batch_size": 8,
            "cycles": 2,
            "epochs_per_cycle": 1.0,
            "lr": 3e-3,
            "patience": 50,
            "save_every_steps": 3,
        },
    ]
    return {
        "name": "r",
        "folder": str(place / name),
        "seed": 7,
        "base": {"model": str(place / "base")},
        "sources": {
            "one": {"rows": str(place / "one.parquet"), "weight": 2},
            "two": {"rows": str(place / "two.parquet")},
        },
        "stages": stages[: how.stages],
    }


@dataclass
class Attempt:
    """A run in a folder of its own, started as often as it takes."""

    place: Path
    name: str
    how: How
    child: subprocess.Popen[bytes] = field(init=False)

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.place / self.name / "r"

    @property
    def log(self) -> Path:
        """All that it said."""
        return self.place / f"{self.name}.log"

    def start(self) -> None:
        """`embedtrain run`."""
        config, machine = self.place / f"{self.name}.yaml", self.place / "machine.yaml"
        config.write_text(json.dumps(run_of(self.place, self.name, self.how)))  # which is YAML
        machine.write_text(f"device: cpu\nnum_processes: {self.how.processes}\nthreads: 1\n")
        command = [sys.executable, "-m", "embedtrain", "run", str(config), "--machine", str(machine)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.place)

    def wait(self, ready: Ready) -> int | None:
        """The exit code of the run, or None as soon as `ready`."""
        while not ready():
            if (code := self.child.poll()) is not None:
                return code
            time.sleep(POLL_SECONDS)
        return None

    def until_done(self, draw: random.Random, kills: Counter[str], most: int, seconds: float) -> int:
        """Start and kill until it is done, or killed often enough; the number of launches."""
        launches = 0
        while True:
            self.start()
            launches += 1
            ready = self.moment(draw, seconds) if kills.total() < most else lambda: False
            if (code := self.wait(ready)) is not None:
                require(code == 0, self)
                return launches
            place = self.kill()
            if place is None:  # it has just ended
                require(self.child.returncode == 0, self)
                return launches
            kills[place] += 1
            say(f"kill {kills.total()} of {most}: while {place}, {self.lines()} steps done")

    def moment(self, draw: random.Random, seconds: float) -> Ready:
        """When to kill: three times in four only after something new was done."""
        since, lines, done = time.monotonic(), self.lines(), self.done()
        steps, later = draw.randint(1, 8), draw.uniform(0, 0.3)
        match draw.choice(["steps", "writing", "gap", "any"]):
            case "steps":
                return lambda: self.lines() >= lines + steps and pause(later)
            case "writing":
                return lambda: self.lines() > lines + steps and self.is_writing()
            case "gap":
                return lambda: self.done() > done and pause(later)
        moment = draw.uniform(0, seconds)
        return lambda: time.monotonic() > since + moment

    def lines(self) -> int:
        """Steps in all curves so far."""
        return sum(path.read_bytes().count(b"\n") for path in self.root.glob(f"*/{CURVE}"))

    def done(self) -> int:
        """Stages that are in place."""
        return sum(path.parent.suffix != ".partial" for path in self.root.glob("*/done.json"))

    def is_writing(self) -> bool:
        """Whether a checkpoint is half written."""
        return bool(list(self.root.glob(f"*.partial/{CHECKPOINTS}/.step-*.partial")))

    def kill(self) -> str | None:
        """SIGKILL to all processes, which stand still first; where it hit them, None where there are none."""
        processes = freeze(self.child)
        if self.child.poll() is not None:
            return None
        place = self.where()
        for process in processes:
            process.kill()
        self.child.wait()
        while any(process.is_running() and process.status() != "zombie" for process in processes):
            time.sleep(POLL_SECONDS)
        return place

    def where(self) -> str:
        """What the run is doing."""
        if self.is_writing():
            return WRITING
        partial = list(self.root.glob("*.partial"))
        if not partial:
            return "between stages"
        at_work = partial[0]
        if (at_work / STOPPABLE).exists():
            return "training"
        if at_work.name.startswith("out"):
            return "exporting"
        return "ending a stage" if (at_work / "encoder").exists() else "beginning a stage"

    def results(self) -> dict[str, Any]:
        """Hashes of all weights, and the curves without what only tells of the machine."""
        stages = {folder.name: folder for folder in sorted(self.root.glob("*-*")) if folder.is_dir()}
        weights = {
            str(path.relative_to(self.root)): hash_file(path)
            for name in stages
            for path in sorted(stages[name].rglob("*.safetensors"))
        }
        curves = {name: read_curve(folder / CURVE) for name, folder in stages.items()}
        kept = {name: [without_machine(line) for line in curve] for name, curve in curves.items() if curve}
        losses = {name: [line["loss"] for line in curve] for name, curve in kept.items()}
        return {"weights": weights, "curves": kept, "losses": losses}


def pause(seconds: float) -> bool:
    """True, after a while."""
    time.sleep(seconds)
    return True


def without_machine(line: Figures) -> Figures:
    """A step's line of the curve that every machine writes alike."""
    return {name: figure for name, figure in line.items() if name not in OF_MACHINE}


def require(passed: bool, attempt: Attempt) -> None:
    """Stop with the end of the run's log where it failed."""
    if not passed:
        raise SystemExit(f"the run failed:\n{attempt.log.read_text()[-4000:]}")


def say(text: str) -> None:
    """A line on the way."""
    print(text, file=sys.stderr, flush=True)
