"""What each lever of speed is worth, switched off alone: `python tools/bench/levers.py`.

Batches of the workloads W3 (queries, each with a passage and 7 hard negatives) and W4 (pairs of all lengths),
cut from shipped text; SmolLM2's first six layers with LoRA adapters. Each way has a process of its own, which
takes one step to warm up and then one in each round, the ways in turns. A figure is the median of CPU-seconds
(on a GPU: seconds), the ratio that of each round's, memory the growth from before the first step to the peak.
"tokens run" are those that a step sends through the model, forward, padding and a second encoding included
(but not what activation checkpointing computes again).

A new lever is a line in LEVERS. A way that says nothing on this device, or cannot be taken, is left out with
its reason; `--levers` takes the former all the same. Losses must agree, or the ways do not compute the same.

Prints tables and the verdict, writes JSON; exits 1 where losses differ. Not yet run on a GPU.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.config.errors import UserError  # noqa: E402
from embedtrain.model.source import resolve_model  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.bench.lever_worker import ALL_ON, LEVERS, Asked, Refused, Worker  # noqa: E402
from tools.bench.machine import machine  # noqa: E402
from tools.bench.steps import SMOLLM2, shown  # noqa: E402
from tools.bench.workloads import SHAPES  # noqa: E402

MOST_DIFFERENCE = 1e-3
"""Relative, between losses of the first step, and of the second, which needs the gradients to agree."""
COLUMNS = ["way", "CPU-s", "spread", "to all on", "growth, MB", "to all on", "tokens run"]
Figures = dict[str, Any]


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    if args.rehearse:
        args.shrink, args.chunk_tokens, args.rounds = 8, 64, 1
    try:
        resolve_model(args.base)
        skipped = {} if args.levers else left_out(args.device)
        names = list(dict.fromkeys([ALL_ON, *(args.levers or LEVERS)]))
        figures = {name: measure(args, name, names, skipped) for name in args.workloads}
    except (UserError, Refused) as error:
        print(error, file=sys.stderr)
        return 2
    faults = [fault for name, ways in figures.items() for fault in judge(name, ways)]
    report(args, figures, skipped, faults)
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every lever of speed, switched off alone")
    parser.add_argument("--workloads", nargs="+", choices=list(SHAPES), default=["W3", "W4"])
    parser.add_argument("--levers", nargs="+", choices=list(LEVERS), metavar="NAME", help=", ".join(LEVERS))
    parser.add_argument("--base", default=SMOLLM2, help="folder, hub id or `pip:` package of the model")
    parser.add_argument("--layers", type=int, default=6, help="the model's first layers; 0: all")
    parser.add_argument(
        "--rows", type=Path, default=ROOT / "rows", help="texts are cut from its training rows"
    )
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--shrink", type=int, default=1, help="texts so many times shorter")
    parser.add_argument("--rehearse", action="store_true", help="short texts, one round: says nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/levers/levers.json")
    return parser.parse_args()


def left_out(device: str) -> dict[str, str]:
    """Ways that say nothing on this device, and why."""
    return {
        name: lever.only_on_gpu for name, lever in LEVERS.items() if lever.only_on_gpu and device != "cuda"
    }


def measure(
    args: argparse.Namespace, workload: str, names: list[str], skipped: dict[str, str]
) -> dict[str, Figures]:
    """Figures of each way on one workload; a way that is refused joins those that are left out."""
    asked = Asked(
        model=args.base,
        layers=args.layers,
        workload=workload,
        rows=args.rows,
        shrink=args.shrink,
        chunk_tokens=args.chunk_tokens,
        threads=args.threads,
        device=args.device,
        precision=args.precision,
    )
    with ExitStack() as stack:
        workers = {}
        for name in (name for name in names if name not in skipped):
            print(f"{workload}: {name} …", file=sys.stderr, flush=True)
            worker = stack.enter_context(Worker(name, asked))
            try:
                workers[name] = worker, [worker.step()]
            except Refused as error:
                if name == ALL_ON:
                    raise
                skipped[name] = str(error)
        for _ in range(args.rounds):
            for worker, steps in workers.values():
                steps.append(worker.step())
    found = {name: summary(steps) for name, (_, steps) in workers.items()}
    return {name: one | compared(one, found[ALL_ON]) for name, one in found.items()}


def summary(steps: list[Figures]) -> Figures:
    """Figures of a way from those of its steps, the first one to warm up."""
    rounds = steps[1:]
    return {
        "seconds": median(one["seconds"] for one in rounds),
        "rounds": [one["seconds"] for one in rounds],
        "first_step_seconds": steps[0]["seconds"],
        "growth_bytes": max(one["peak_bytes"] for one in steps) - steps[0]["held_bytes"],
        "losses": [one["loss"] for one in steps[:2]],
        **{name: steps[-1][name] for name in ("texts", "tokens", "tokens_run", "padded")},
    }


def compared(one: Figures, all_on: Figures) -> Figures:
    """Ratios to the way with everything on; of time, the median of the rounds' own."""
    pairs = zip(one["rounds"], all_on["rounds"], strict=True)
    return {
        "time_ratio": median(a / b for a, b in pairs),
        "growth_ratio": one["growth_bytes"] / max(1, all_on["growth_bytes"]),
    }


def judge(workload: str, ways: Mapping[str, Figures]) -> list[str]:
    """Ways whose losses are not those of everything on, where they should be."""
    faults = []
    for name, one in ways.items():
        if LEVERS[name].changes_loss:
            continue
        for step, (found, expected) in enumerate(zip(one["losses"], ways[ALL_ON]["losses"], strict=True), 1):
            if not abs(found - expected) <= MOST_DIFFERENCE * abs(expected):
                faults.append(f"{workload}, {name}: loss {found:.5f} in step {step}, expected {expected:.5f}")
    return faults


def lines(ways: Mapping[str, Figures]) -> Iterator[list[object]]:
    """Lines of a workload's table."""
    for name, one in ways.items():
        spread = f"{min(one['rounds']):.2f} to {max(one['rounds']):.2f}"
        growth = [one["growth_bytes"] / 1e6, one["growth_ratio"]]
        yield [name, one["seconds"], spread, one["time_ratio"], *growth, one["tokens_run"]]


def report(
    args: argparse.Namespace,
    figures: Mapping[str, Mapping[str, Figures]],
    skipped: Mapping[str, str],
    faults: list[str],
) -> None:
    """Print the tables and the verdict, and write the JSON."""
    model = shown(args.base)
    names = ("layers", "chunk_tokens", "rounds", "threads", "device", "precision", "shrink", "rehearse")
    how = {"model": model} | {name: getattr(args, name) for name in names}
    found = {
        "machine": machine(args.threads),
        "how": how,
        "workloads": figures,
        "skipped": skipped,
        "faults": faults,
        "passed": not faults,
    }
    write_json(args.out, found)
    columns = COLUMNS if args.device == "cpu" else ["way", "seconds", *COLUMNS[2:]]
    for name, ways in figures.items():
        one = ways[ALL_ON]
        note = f"{one['texts']} texts, {one['tokens']:,} tokens; {model}, {args.layers or 'all'} layers"
        print_table(f"{name}: {SHAPES[name].says}", columns, list(lines(ways)), note=note)
    for name, reason in skipped.items():
        print(f"{name}: left out, {reason}")
    for fault in faults:
        print(fault)
    print(f"levers: {'FAILED' if faults else 'passed'}, JSON in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
