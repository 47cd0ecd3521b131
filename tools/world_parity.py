"""Is a run the same on any number of processes? `python tools/world_parity.py --processes 1 2 4`.

A tiny random Llama is trained for 30 steps on ragged rows of two sources, by LoRA and in full, in float64 and
float32, without dropout. Each number of processes makes the whole run, and goes on from the checkpoint that
one process left after 10 steps. Compared with one process, undisturbed: the global batches by hash; the next
step's gradient, by the norm of the difference over the norm; the loss of every step; the vectors of the
trained encoder, and the mean reciprocal rank of the rows' positives among all documents.

Prints a table, writes JSON, prints the verdict last; exits 1 where a bound is missed: 1e-12 and 1e-6 for the
gradient (float64, float32), 1e-7 and 1e-3 for the rest. `--forget-average` compares the gradient of the first
process alone, to see the tool fail.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import hash_json, write_json  # noqa: E402
from embedtrain.config.schema import Base, Machine, Run  # noqa: E402
from embedtrain.config.sources import Source  # noqa: E402
from embedtrain.config.stages import Train  # noqa: E402
from embedtrain.dist import average_gradients, barrier, current, gather_fields  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from embedtrain.train.log import read_curve  # noqa: E402
from embedtrain.train.loop import local_batch, train  # noqa: E402
from embedtrain.train.prepare import Training, prepare, resume  # noqa: E402
from embedtrain.train.step import train_step  # noqa: E402
from tools.gradient_parity import save_tiny  # noqa: E402
from tools.launch import on_processes  # noqa: E402
from tools.parity_cases import Gradients, Tuning, ragged_rows, relative_error, tiny_encoder  # noqa: E402

STEPS, RESUMED_AT = 30, 10
GRADIENT_BOUNDS = {"float64": 1e-12, "float32": 1e-6}
RUN_BOUNDS = {"float64": 1e-7, "float32": 1e-3}
"""For losses, vectors, which are float32 in both, and the metric after many steps."""
MACHINE = Machine(chunk_tokens=128, keep_tokens=0)
"""Several chunks a step, all encoded twice."""
TUNINGS: tuple[Tuning, ...] = ("lora", "full")
Way = Literal["whole", "resumed"]
WAYS: tuple[Way, ...] = ("whole", "resumed")


@dataclass(frozen=True)
class Cell:
    """One kind of run."""

    tuning: Tuning
    dtype: str


Key = tuple[Cell, Way]


@dataclass(frozen=True)
class Measured:
    """What a number of processes made of a run, from step `first` on."""

    batches: list[str]
    gradient: Gradients
    losses: list[float]
    vectors: np.ndarray
    reciprocal_rank: float


@dataclass(frozen=True)
class Compared:
    """A run against one process: errors are relative, of losses the largest."""

    tuning: Tuning
    dtype: str
    processes: int
    way: Way
    same_batches: bool
    gradient_error: float
    loss_error: float
    vectors_error: float
    metric_error: float

    @property
    def passed(self) -> bool:
        """Whether all is within the bounds; a NaN is not."""
        errors = (self.loss_error, self.vectors_error, self.metric_error)
        exact = self.same_batches and self.gradient_error <= GRADIENT_BOUNDS[self.dtype]
        return exact and all(error <= RUN_BOUNDS[self.dtype] for error in errors)


def main() -> int:
    """Run all cells, show and judge; the exit status."""
    args, started = parse_arguments(), time.perf_counter()
    cells = [Cell(*pair) for pair in itertools.product(args.tunings, args.dtypes)]
    numbers = [number for number in args.processes if number > 1]
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(Path(folder) / "model")
        truth = on_processes(1, measure_all, folder, cells)
        results = {n: on_processes(n, measure_all, folder, cells, args.forget_average) for n in numbers}
    compared = [compare(key, n, results[n][key], truth[key]) for n in numbers for key in truth]
    faults = [line for line in compared if not line.passed]
    show(compared)
    for line in faults:
        print(f"missed: {line}")
    seconds = time.perf_counter() - started
    bounds = {"gradient": GRADIENT_BOUNDS, "run": RUN_BOUNDS}
    write_json(args.out, {"runs": [asdict(c) for c in compared], "bounds": bounds, "passed": not faults})
    verdict = f"{len(faults)} of {len(compared)} FAILED" if faults else f"all {len(compared)} passed"
    print(f"world_parity: {verdict} in {seconds:.0f} s, JSON in {args.out}")
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Is a run the same on any number of processes?")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--tunings", nargs="+", choices=TUNINGS, default=TUNINGS)
    parser.add_argument("--dtypes", nargs="+", choices=list(RUN_BOUNDS), default=list(RUN_BOUNDS))
    parser.add_argument(
        "--forget-average", action="store_true", help="a gradient of one process's rows alone"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/gradients/world_parity.json")
    return parser.parse_args()


def measure_all(folder: str, cells: list[Cell], forget_average: bool = False) -> dict[Key, Measured]:
    """Every cell, whole and resumed from where one process was; run on every process, one process first."""
    found: dict[Key, Measured] = {}
    for cell in cells:
        own = Path(folder) / f"{cell.tuning}-{cell.dtype}"
        for way in WAYS:
            place = own / f"{way}-{current().world}"
            if way == "resumed" and current().rank == 0:
                take_checkpoint(own / "whole-1", place)
            barrier()
            found[cell, way] = measure(Path(folder) / "model", cell, place, forget_average)
    return found


def take_checkpoint(finished: Path, folder: Path) -> None:
    """What the finished run's folder held after RESUMED_AT steps."""
    name = f"checkpoints/step-{RESUMED_AT:06d}"
    shutil.copytree(finished / name, folder / name)
    shutil.copy(finished / "curve.jsonl", folder)  # a resumed run cuts it


def measure(model: Path, cell: Cell, folder: Path, forget_average: bool) -> Measured:
    """Make the cell's run in the folder, or go on there; run on every process."""
    stage, run = settings(cell)
    rows = ragged_rows(60)
    by_source = {"faq": rows[:30], "manual": rows[30:]}
    dtype = getattr(torch, cell.dtype)
    job = prepare(tiny_encoder(str(model), cell.tuning, dtype=dtype), by_source, stage, run, MACHINE, {})
    job.encoder.learned.to(dtype)  # a learned number is kept as float32
    first = int(resume(job, run, folder)["step"])
    gradient = next_gradient(job, first, forget_average)
    encoder = tiny_encoder(str(model), cell.tuning, dtype=dtype)
    train(encoder, by_source, stage, run, MACHINE, folder)
    vectors = encoder.encode([text for row in rows for text in (row.query, row.positives[0])])
    losses = [float(line["loss"]) for line in read_curve(folder / "curve.jsonl")]
    return Measured(batches_of(job, first), gradient, losses, vectors, mean_reciprocal_rank(vectors))


def settings(cell: Cell) -> tuple[Train, Run]:
    """A run with mixed and stored negatives, a learned temperature and two sources."""
    temperature = {"initial": 0.1, "minimum": 0.05, "maximum": 0.2}
    term = {"kind": "infonce", "temperature": temperature, "mixing": [{"kind": "pair"}]}
    stage = Train.model_validate(
        {
            "kind": "train",
            "name": "tune",
            "tuning": cell.tuning,
            "objective": {"terms": [term], "matryoshka": {"dims": [32, 8]}},
            "batch_size": 7,
            "num_negatives": 2,
            "steps": STEPS,
            "lr": 1e-3,
            "save_every_steps": RESUMED_AT,
            "keep_last": STEPS // RESUMED_AT,
        }
    )
    sources = {"faq": Source(rows="faq.parquet", weight=2), "manual": Source(rows="manual.parquet")}
    return stage, Run(name="tiny", base=Base(model="tiny"), sources=sources, stages=(stage,))


def next_gradient(job: Training, first: int, forget_average: bool) -> Gradients:
    """Of the step after the first `first`, as the optimizer would take it."""
    _, batch = local_batch(job, next(job.plan.batches(first, job.steps)))
    job.optimizer.zero_grad()
    train_step(job.encoder, batch, job.objective, chunk_tokens=job.machine.chunk_tokens)
    if not forget_average:
        average_gradients(p for _, p in job.named)
    found = {name: p.grad for name, p in job.named if p.grad is not None}
    return {name: gradient.numpy().copy() for name, gradient in found.items()}


def batches_of(job: Training, first: int) -> list[str]:
    """A hash of each global batch: its texts, as they are numbered in it."""
    hashes = []
    for planned in job.plan.batches(first, job.steps):
        _, batch = local_batch(job, planned)
        names = ("query_index_B", "query_key_B", "owner_C", "document_key_C", "is_positive_C")
        [known] = gather_fields({name: getattr(batch, name) for name in names})
        hashes.append(hash_json([batch.source, {name: x.tolist() for name, x in known.items()}]))
    return hashes


def mean_reciprocal_rank(vectors: np.ndarray) -> float:
    """Of each query's own positive among those of all rows; queries and positives take turns."""
    scores = vectors[0::2] @ vectors[1::2].T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    return float((1 / ranks).mean())


def compare(key: Key, processes: int, found: Measured, truth: Measured) -> Compared:
    """A run against the same one on one process."""
    cell, way = key
    losses = np.abs(np.subtract(found.losses, truth.losses)) / np.abs(truth.losses)
    vectors = np.linalg.norm(found.vectors - truth.vectors) / np.linalg.norm(truth.vectors)
    return Compared(
        tuning=cell.tuning,
        dtype=cell.dtype,
        processes=processes,
        way=way,
        same_batches=found.batches == truth.batches,
        gradient_error=relative_error(found.gradient, truth.gradient),
        loss_error=float(losses.max()),
        vectors_error=float(vectors),
        metric_error=abs(found.reciprocal_rank - truth.reciprocal_rank),
    )


def show(compared: list[Compared]) -> None:
    """A row for each run."""
    rows = [
        [
            f"{c.tuning}, {c.dtype}",
            f"{c.processes}, {c.way}",
            "same" if c.same_batches else "OTHERS",
            *(f"{x:.0e}" for x in (c.gradient_error, c.loss_error, c.vectors_error, c.metric_error)),
        ]
        for c in compared
    ]
    names = ["run", "processes", "batches", "gradient", "loss", "vectors", "mrr"]
    print_table(f"{STEPS} steps, resumed after {RESUMED_AT}: errors against one process", names, rows)


if __name__ == "__main__":
    sys.exit(main())
