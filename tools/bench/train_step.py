"""Speed of a training step beside other trainers: `python tools/bench/train_step.py --peers all`.

Every peer has the same weights, LoRA tensors, token ids, loss and optimizer, and a process of its own. Its
first step must give the bare loop's loss and LoRA gradient, or nothing is measured. Then settings are tuned,
the best of each peer counts, and the peers take one step each in turn, round after round; ratios are those of
a round. On a CPU speed is by CPU-seconds, so that another load counts little.

Writes JSON and a Markdown page beside it, prints the verdict last; exits 1 where a peer fails the gate or a
bound is missed. A peer that cannot be imported is named and skipped.

Examples:
  python tools/bench/train_step.py --peers all --workloads W1 W3 W4
  python tools/bench/train_step.py --peers ours st_cached --workloads W3 --rounds 1 --out runs/step.json
  python tools/bench/train_step.py --device cuda --model qwen2_0.5b --rows 4096 --workloads W1
  python tools/bench/train_step.py --rehearse
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import cache_folder, write_atomic, write_json  # noqa: E402
from embedtrain.show.tables import markdown_table, print_table  # noqa: E402
from tools.bench.contestants import (  # noqa: E402
    BARE,
    CONTESTANTS,
    GROUPS,
    ON_CPU,
    REHEARSAL,
    ROWS_ON_GPU,
    Size,
    gpu_size,
)
from tools.bench.machine import machine  # noqa: E402
from tools.bench.rounds import Match, Refused  # noqa: E402
from tools.bench.step_figures import judge, rate_table, step_table, unjudged  # noqa: E402
from tools.bench.workloads import SHAPES  # noqa: E402

Figures = dict[str, Any]


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    size = choose_size(args)
    chosen = [one for one in CONTESTANTS if one.group in args.peers or one.name == BARE]
    match = Match(size, chosen, args.work, args.threads, planned=len(args.workloads))
    try:
        workloads = {name: match.play(name) for name in args.workloads}
    except Refused as error:
        print(f"train_step: {error}")
        return 1
    faults = judge(workloads) if size.judged else []
    notes = [f"{name}: skipped, {reason}" for name, reason in match.absent.items()] + match.unfit
    notes += list(unjudged(workloads)) if size.judged else []
    report(args.out, size, workloads, {"notes": notes, "faults": faults, "machine": machine(args.threads)})
    verdict = faults or (["all within their bounds"] if size.judged else ["no bounds at this size"])
    print("\n".join([*notes, *verdict]))
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    says, _, examples = (__doc__ or "").partition("Examples:")
    parser = argparse.ArgumentParser(
        description=says,
        epilog=f"examples:{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", nargs="+", choices=[*GROUPS, "all"], default=["all"], help="the bare loop always runs")
    add("--workloads", nargs="+", choices=SHAPES, default=["W1", "W3", "W4"])
    add("--rounds", type=int, help="one step a peer each; absent: 3, on a GPU 5")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: bfloat16, random weights")
    add("--model", choices=ROWS_ON_GPU, default="smollm2", help="shape on a GPU")
    add("--rows", type=int, help="rows in the batch; absent: the workload's, on a GPU the model's")
    add("--rehearse", action="store_true", help="tiny random weights and few tokens: the same in seconds")
    add("--threads", type=int, default=cores(), help="of every peer")
    add("--out", type=Path, default=ROOT / "benchmarks/train_step/cpu.json", help="JSON, a page beside it")
    add("--work", type=Path, default=cache_folder("bench"), help="checkpoint, batches, logs")
    args = parser.parse_args()
    args.peers = GROUPS if "all" in args.peers else args.peers
    return args


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_size(args: argparse.Namespace) -> Size:
    """The scale that the command line asks for; bounds are for the CPU's own batches."""
    if args.rehearse:
        size = REHEARSAL
    elif args.device == "cuda":
        size = gpu_size(args.model, args.rows)
    else:
        size = replace(ON_CPU, rows=args.rows, judged=args.rows is None)
    return size if args.rounds is None else replace(size, rounds=args.rounds)


def report(out: Path, size: Size, workloads: Figures, told: Figures) -> None:
    """JSON and, beside it, a page of tables; the tables in the terminal too."""
    scale = {
        "model": size.model,
        "layers": size.layers,
        "precision": size.precision,
        "device": size.device,
        "clock": size.clock,
    }
    write_json(out, told | {"size": scale, "workloads": workloads})
    found = told["machine"]
    page = [
        f"# A training step: {size.model}, {size.precision}, {size.device}\n",
        f"{found['processor']}, {found['threads']} threads, {found['date']}\n",
        ", ".join(f"{name} {number}" for name, number in found["versions"].items()) + "\n",
        "The last columns say how many times as fast embedtrain is. Memory is what a step needs: beside the"
        " model on a CPU, all of it on a GPU. `useful` counts 4N on real tokens, `hardware` all that is done,"
        " 6N when recomputing and padding included; both are shares of the speed of a square product in the"
        " same process.\n",
    ]
    for name, workload in workloads.items():
        title = f"{name}: {SHAPES[name].says}, {workload['pairs']} rows, {workload['real_tokens']:,} tokens"
        page.append(f"**{title}**\n")
        for table in (step_table, rate_table):
            columns, rows = table(workload, size.clock)
            print_table(title if table is step_table else None, columns, rows)
            page.append(markdown_table(columns, rows))
    lines = [f"- {line}\n" for line in [*told["notes"], *told["faults"]]]
    lines += ["- all within their bounds\n"] if size.judged and not told["faults"] else []
    write_atomic(out.with_suffix(".md"), "\n".join([*page, "".join(lines)]))


if __name__ == "__main__":
    sys.exit(main())
