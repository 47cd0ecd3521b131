"""Where the time of one training step goes: `python tools/profile --out FOLDER`.

A model with LoRA adapters takes three steps on shipped rows: one to warm up, one on a clock, which gives the
phases and the peak of memory, and one under `torch.profiler`, which gives the operators and the share of
matrix products. The loader's work is not in it: the batch is there before.

Prints tables; writes `profile.txt`, `profile.json` and `trace.json`, which Perfetto (ui.perfetto.dev) and
chrome://tracing show. `--device cuda` walks the same path with the GPU's times; it has not been run yet.

This folder has no `__init__.py` on purpose: with one, or as a file `profile.py`, it would stand in the way of
Python's own `profile` for every program in tools/, and torch.compile needs that.
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_atomic, write_json  # noqa: E402
from embedtrain.batch import ContrastiveBatch  # noqa: E402
from embedtrain.config.errors import UserError  # noqa: E402
from embedtrain.show.tables import table_text  # noqa: E402
from tools.bench.steps import (  # noqa: E402
    SMOLLM2,
    Trainee,
    batch_of_rows,
    num_tokens,
    open_trainee,
    read_all,
    shown,
)
from tools.peak import device_peak, start_peak  # noqa: E402
from tools.profile.phases import PHASES, PREFIX, Clock, labelled_step  # noqa: E402

PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
ATTENTION = "scaled_dot_product"
NUM_OPERATORS = 15
Figures = dict[str, Any]


def main() -> int:
    """Take the steps, show and write; the exit status."""
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        trainee = open_trainee(args.base, args.layers, device=args.device, precision=args.precision)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    rows = read_all(args.rows)
    rows = rows[:: max(1, len(rows) // args.batch)][: args.batch]
    batch = batch_of_rows(trainee.encoder, rows, max_tokens=args.max_tokens, num_negatives=args.negatives)
    figures = {"batch": size_of(batch), "how": how(args, trainee)} | measure(trainee, batch, args)
    write_json(args.out / "profile.json", figures)
    text = "\n".join(pages(figures))
    write_atomic(args.out / "profile.txt", text)
    print(text)
    print(f"profile: trace in {args.out / 'trace.json'}, figures in {args.out / 'profile.json'}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Where the time of one training step goes")
    parser.add_argument("--base", default=SMOLLM2, help="folder, hub id or `pip:` package of the model")
    parser.add_argument("--layers", type=int, default=6, help="the model's first layers; 0: all")
    parser.add_argument("--rows", type=Path, nargs="+", default=[ROOT / "rows"], help="files or folders")
    parser.add_argument("--batch", type=int, default=64, help="rows of the batch")
    parser.add_argument("--negatives", type=int, default=0, help="stored negatives of a row, at most")
    parser.add_argument("--max-tokens", type=int, default=256, help="texts are cut to so many")
    parser.add_argument("--chunk-tokens", type=int, default=1024)
    parser.add_argument("--keep-tokens", type=int, default=2048, help="tokens whose graphs are kept")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, help="absent: torch's choice")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser.parse_args()


def size_of(batch: ContrastiveBatch) -> dict[str, int]:
    """What the step works on."""
    texts = len(batch.queries) + len(batch.documents)
    return {"rows": len(batch.queries), "texts": texts, "tokens": num_tokens(batch)}


def how(args: argparse.Namespace, trainee: Trainee) -> dict[str, object]:
    """What the figures depend on."""
    names = ("layers", "chunk_tokens", "keep_tokens", "device", "precision")
    return {name: getattr(args, name) for name in names} | {
        "model": shown(args.base),
        "padded": trainee.encoder.padded,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
    }


def measure(trainee: Trainee, batch: ContrastiveBatch, args: argparse.Namespace) -> Figures:
    """Phases and memory of one step, operators of the next."""
    trainee.step(batch, args.chunk_tokens, args.keep_tokens)
    clock, held, start = Clock(args.device), start_peak(args.device), time.perf_counter()
    loss = labelled_step(trainee, batch, clock, args.chunk_tokens, args.keep_tokens)
    seconds, peak = time.perf_counter() - start, device_peak(args.device)
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (args.device == "cuda")
    with profile(activities=activities, with_flops=True) as profiler:
        labelled_step(trainee, batch, Clock(args.device), args.chunk_tokens, args.keep_tokens)
    args.out.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(args.out / "trace.json"))
    phases = {
        name: {
            "seconds": clock.seconds[name],
            "cpu_seconds": clock.cpu_seconds[name],
            "calls": clock.calls[name],
        }
        for name in PHASES
        if clock.calls[name]
    }
    operators = list(read_operators(profiler.key_averages(), args.device))
    return {
        "loss": loss,
        "seconds": seconds,
        "phases": phases,
        "peak_growth_bytes": peak - held,
        "peak_bytes": peak,
        **shares(operators),
        "operators": operators[:NUM_OPERATORS],
    }


def read_operators(events: Any, device: str) -> Iterator[Figures]:
    """Operators by their own time, longest first; on a GPU that of the kernels they start."""
    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = [e for e in events if e.device_type == DeviceType.CPU and not e.key.startswith(PREFIX)]
    for event in sorted(events, key=lambda event: -getattr(event, own)):
        seconds = getattr(event, own) / 1e6
        yield {"name": event.key, "calls": event.count, "seconds": seconds, "flops": event.flops}


def shares(operators: list[Figures]) -> Figures:
    """Seconds of all operators together, and of matrix products and attention among them."""
    total = sum(one["seconds"] for one in operators)
    products = [one for one in operators if one["name"] in PRODUCTS]
    attention = sum(one["seconds"] for one in operators if ATTENTION in one["name"])
    matmul = sum(one["seconds"] for one in products)
    return {
        "operator_seconds": total,
        "matmul_seconds": matmul,
        "matmul_fraction": matmul / total,
        "matmul_flops_per_second": sum(one["flops"] for one in products) / matmul if matmul else 0.0,
        "attention_fraction": attention / total,
    }


def pages(figures: Figures) -> Iterator[str]:
    """The text that a person reads."""
    how, batch, seconds = figures["how"], figures["batch"], figures["seconds"]
    texts = "packed" if how["padded"] is None else f"padded, since {how['padded']}"
    yield (
        f"One step of {how['model']}, {how['layers'] or 'all'} layers, {how['precision']} on {how['device']} "
        f"({how['processor']}, {how['threads']} threads, torch {how['torch']}):\n"
        f"{batch['rows']:,} rows, {batch['texts']:,} texts, {batch['tokens']:,} tokens, {texts}, chunks of "
        f"{how['chunk_tokens']:,} tokens, graphs of {how['keep_tokens']:,} kept; {seconds:.2f} s, "
        f"{batch['tokens'] / seconds:,.0f} tokens/s\n"
    )
    rows = [
        [name, one["calls"], 1e3 * one["cpu_seconds"], 1e3 * one["seconds"], percent(one["seconds"], seconds)]
        for name, one in figures["phases"].items()
    ]
    columns = ["phase", "entered", "own CPU-ms", "own ms", "of the step"]
    yield table_text("Where the time goes", columns, rows)
    total = figures["operator_seconds"]
    rows = [
        [one["name"], one["calls"], 1e3 * one["seconds"], percent(one["seconds"], total)]
        for one in figures["operators"]
    ]
    yield table_text("Operators by their own time", ["operator", "calls", "own ms", "of all"], rows)
    yield (
        f"matrix products {100 * figures['matmul_fraction']:.1f} % of the operators' time, "
        f"at {figures['matmul_flops_per_second'] / 1e9:,.1f} GFLOP/s; "
        f"attention {100 * figures['attention_fraction']:.1f} %\n"
        f"peak memory {figures['peak_bytes'] / 1e6:,.0f} MB, "
        f"{figures['peak_growth_bytes'] / 1e6:,.0f} MB above what was held before the step\n"
    )


def percent(part: float, whole: float) -> str:
    """A share as text."""
    return f"{100 * part / whole:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
