"""Does a sample cost the same in batches of all sizes, on any number of processes?

`python tools/bench/scaling.py`: a model's first two layers take whole steps with LoRA and the gradient cache
(no graph is kept) on short shipped rows: over batch sizes on one process, and over processes (gloo) at one
global batch. A batch holds every n-th of the same rows by length, so texts are alike at every size. The
graph of a batch of one chunk is always kept, which makes its samples cheaper: the smallest batch must have
several chunks. Sizes take turns; figures are medians over rounds of CPU-seconds a sample, those of all
processes added up, one thread each.

Prints tables, writes JSON and the verdict last; exits 1 where a sample of the largest batch, or on the most
processes, costs over 1.15 times one of the smallest. `--device cuda` measures seconds over batch sizes up to
65,536, on one process; it has not been run yet. There a small model's step is in part the loss, whose cost a
sample grows with the batch: take more layers.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.config.errors import UserError  # noqa: E402
from embedtrain.data.rows import Row  # noqa: E402
from embedtrain.dist import current, mean_over_processes  # noqa: E402
from embedtrain.mixture import share  # noqa: E402
from embedtrain.model.source import resolve_model  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.bench.machine import machine  # noqa: E402
from tools.bench.steps import (  # noqa: E402
    SMOLLM2,
    Trainee,
    batch_of_rows,
    num_tokens,
    open_trainee,
    read_all,
    shown,
    time_call,
    training_files,
)
from tools.launch import on_processes  # noqa: E402
from tools.peak import device_peak, start_peak  # noqa: E402

MOST_RATIO = 1.15
SIZES = {"cpu": [256, 512, 1024, 2048], "cuda": [1024, 4096, 16_384, 65_536]}
COLUMNS = ["batch", "processes", "tokens a sample", "ms a sample", "spread", "to the first", "growth, MB"]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What every process is told."""

    model: str
    layers: int
    rows: tuple[Path, ...]
    max_tokens: int
    chunk_tokens: int
    rounds: int
    device: str
    precision: str


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    sizes = sorted(args.sizes or SIZES[args.device])
    try:
        asked = make_asked(args)
        figures = {"batch size": measured(asked, 1, sizes)}
        if args.device == "cpu" and args.processes:
            worlds = sorted(args.processes)
            figures["processes"] = [one for n in worlds for one in measured(asked, n, [args.global_batch])]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    faults = [fault for what, line in figures.items() for fault in judge(what, line)]
    report(args.out, asked, figures, faults)
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Cost of a sample over batch sizes and processes")
    parser.add_argument("--base", default=SMOLLM2, help="folder, hub id or `pip:` package of the model")
    parser.add_argument("--layers", type=int, default=2, help="the model's first layers; 0: all")
    parser.add_argument("--rows", type=Path, nargs="+", default=[ROOT / "rows/wordnet", ROOT / "rows/usage"])
    parser.add_argument("--sizes", type=int, nargs="+", help="rows of a batch")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2], help="none: leave this part out")
    parser.add_argument("--global-batch", type=int, default=512, help="rows of a step of all processes")
    parser.add_argument("--max-tokens", type=int, default=64, help="texts are cut to so many")
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/scaling/scaling.json")
    return parser.parse_args()


def make_asked(args: argparse.Namespace) -> Asked:
    """The command line as processes are told; files are looked for and the model is fetched here, once."""
    files = training_files(args.rows)
    resolve_model(args.base)
    names = ("layers", "max_tokens", "chunk_tokens", "rounds", "device", "precision")
    return Asked(model=args.base, rows=tuple(files), **{name: getattr(args, name) for name in names})


def measured(asked: Asked, world: int, sizes: Sequence[int]) -> list[Figures]:
    """Figures of each batch size on so many processes."""
    if asked.device == "cuda":
        return measure(asked, list(sizes))
    found: list[Figures] = on_processes(world, measure, asked, list(sizes))
    return found


def measure(asked: Asked, sizes: list[int]) -> list[Figures]:
    """One of the processes: a step at each size to warm up, then all sizes in turns."""
    trainee = open_trainee(asked.model, asked.layers, device=asked.device, precision=asked.precision)
    rows = drawn_rows(read_all(asked.rows), max(sizes))
    figures = [first_step(asked, trainee, fair_share(rows, size)) for size in sizes]
    for _ in range(asked.rounds):
        for one in figures:
            one["rounds"].append(time_step(asked, trainee, one["share"]) / one["batch"])
    for one in figures:
        del one["share"]
        one["seconds_a_sample"] = median(one["rounds"])
    return figures


def drawn_rows(rows: Sequence[Row], num: int) -> list[Row]:
    """Rows from all over, sorted by length; where there are too few, some stand several times."""
    drawn = [rows[place * len(rows) // num] for place in range(num)]
    return sorted(drawn, key=lambda row: len(row.query) + len(row.positives[0]))


def fair_share(rows: Sequence[Row], size: int) -> list[Row]:
    """The middle row of each of `size` equal parts."""
    return [rows[(2 * part + 1) * len(rows) // (2 * size)] for part in range(size)]


def first_step(asked: Asked, trainee: Trainee, rows: list[Row]) -> Figures:
    """A step to warm up, and what it tells besides time: tokens, loss, this process's growth of memory."""
    here = current()
    part = share(rows, here.rank, here.world)
    batch = batch_of_rows(trainee.encoder, rows[part], first=part.start, max_tokens=asked.max_tokens)
    held = start_peak(asked.device)
    loss = trainee.step(batch, asked.chunk_tokens, 0)
    return {
        "batch": len(rows),
        "processes": here.world,
        "tokens_a_sample": over_processes(num_tokens(batch)) / len(rows),
        "chunks": num_tokens(batch) / asked.chunk_tokens,
        "loss": over_processes(loss) / here.world,
        "growth_bytes": device_peak(asked.device) - held,
        "rounds": [],
        "share": batch,
    }


def time_step(asked: Asked, trainee: Trainee, batch: Any) -> float:
    """CPU-seconds of all processes in a step; on a GPU, seconds."""
    took = time_call(lambda: trainee.step(batch, asked.chunk_tokens, 0), asked.device)
    return over_processes(took["wall" if asked.device == "cuda" else "cpu"])


def over_processes(value: float) -> float:
    """The sum."""
    return float(mean_over_processes(torch.tensor(value, dtype=torch.float64))) * current().world


def judge(what: str, figures: Sequence[Figures]) -> list[str]:
    """What is not flat, a sample at the end of the line against one at its start; or proves nothing."""
    faults = [
        f"{what}: a batch of {one['batch']:,} on {one['processes']} processes is one chunk, whose graph is "
        "kept; lower --chunk-tokens"
        for one in figures
        if one["chunks"] <= 1
    ]
    first, last = figures[0]["seconds_a_sample"], figures[-1]["seconds_a_sample"]
    if not last <= MOST_RATIO * first:
        faults.append(
            f"{what}: a sample costs {last / first:.2f} times the first one's, at most {MOST_RATIO}"
        )
    return faults


def lines(figures: Sequence[Figures]) -> list[list[object]]:
    """Lines of the table."""
    first = figures[0]["seconds_a_sample"]
    return [
        [
            one["batch"],
            one["processes"],
            one["tokens_a_sample"],
            1e3 * one["seconds_a_sample"],
            f"{1e3 * min(one['rounds']):.2f} to {1e3 * max(one['rounds']):.2f}",
            one["seconds_a_sample"] / first,
            one["growth_bytes"] / 1e6,
        ]
        for one in figures
    ]


def report(out: Path, asked: Asked, figures: dict[str, list[Figures]], faults: list[str]) -> None:
    """Print the tables and the verdict, and write the JSON."""
    what = "seconds" if asked.device == "cuda" else "CPU-seconds"
    model = shown(asked.model)
    settings = {
        name: getattr(asked, name)
        for name in ("layers", "max_tokens", "chunk_tokens", "rounds", "device", "precision")
    }
    told = {"model": model, **settings, "measured": what}
    written = {"machine": machine(torch.get_num_threads()), "how": told, "figures": figures}
    write_json(out, written | {"faults": faults, "passed": not faults})
    for name, found in figures.items():
        note = f"{what} of {model}, {asked.layers or 'all'} layers, {asked.rounds} rounds"
        print_table(f"Cost of a sample over {name}", COLUMNS, lines(found), note=note)
    for fault in faults:
        print(fault)
    print(f"scaling: {'FAILED' if faults else 'passed'}, JSON in {out}")


if __name__ == "__main__":
    sys.exit(main())
