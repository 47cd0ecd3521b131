"""Which negatives help? `python tools/compare_negatives.py` trains one short run for each way to choose them.

Every arm of `tools/negative_arms.py` starts from one stage-1 checkpoint and sees the same rows in the same
batches; only the negatives differ. What is told is nDCG@10 on held-out sets, the mean over them, with five
paired seeds: the difference, its 95 % intervals over seeds (paired t) and over test queries (bootstrap), and
the difference that so many seeds would find. A difference counts only where neither interval holds zero.

Runs are those of `embedtrain run`: a stopped table goes on where it was. A cell, once measured, is kept below
the folder, and its model removed. Writes JSON and a Markdown table, prints the verdict last.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.api import run as run_stages  # noqa: E402
from embedtrain.cli.ending import end  # noqa: E402
from embedtrain.config.load import load_machine, resolved  # noqa: E402
from embedtrain.evaluation.tasks import Retrieval  # noqa: E402
from embedtrain.model.st import open_sentence_transformer  # noqa: E402
from tools.cells import (  # noqa: E402
    Cell,
    Table,
    difference_table,
    held_out_tasks,
    make_cells,
    points,
    told,
    values_of,
    verdicts,
    write_report,
)
from tools.negative_arms import ARMS, REFERENCE, SIZES, TASKS, Arm, comparisons, make_run  # noqa: E402
from tools.paired import compare  # noqa: E402


def main() -> int:
    """Train what is missing, measure it, tell."""
    args = parse_arguments()
    arms = [arm for arm in ARMS if not args.arms or arm.name in args.arms]
    tasks = held_out_tasks(TASKS, SIZES[args.size].test_tokens)
    machine = load_machine(args.machine)
    cells: dict[int, dict[str, Cell]] = {}
    for seed in args.seeds:
        runs = partial(make_run, args.size, str(args.folder), seed=seed)
        open_model = partial(open_sentence_transformer, device=machine.device)
        cells[seed] = make_cells(runs, arms, seed, tasks, partial(run_stages, machine=machine), open_model)
        report(args, arms, tasks, cells)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Which negatives help")
    parser.add_argument("--size", choices=SIZES, default="micro")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="absent: all")
    parser.add_argument("--machine", type=Path, help="machine file; absent: one CPU process")
    parser.add_argument("--folder", type=Path, default=Path("runs/negatives"), help="of runs and cells")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/negatives"), help="of JSON and table")
    return parser.parse_args()


# --- report -------------------------------------------------------------------------------------------------


def report(
    args: argparse.Namespace,
    arms: Sequence[Arm],
    tasks: Sequence[Retrieval],
    cells: Mapping[int, Mapping[str, Cell]],
) -> None:
    """Write and print what is measured so far."""
    values = values_of(cells, [REFERENCE, *(arm.name for arm in arms)], tasks)
    found = [compare(*pair, values) for pair in comparisons([arm.name for arm in arms])]
    figures = {
        "size": asdict(SIZES[args.size]),
        "seeds": list(cells),
        "tasks": {task.name: task.sizes for task in tasks},
        "run": resolved(make_run(args.size, "runs", arms, args.seeds[0])),
        "ndcg@10": {name: points(of_tasks) for name, of_tasks in values.items()},
        "differences": told(found),
    }
    tables = [score_table(arms, values), difference_table(found)]
    write_report(args.out / args.size, figures, tables, list(verdicts(found, len(cells))))


def score_table(arms: Sequence[Arm], values: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """The nDCG@10 of each arm by task, means over seeds."""
    says = {REFERENCE: "before stage 2"} | {arm.name: arm.says for arm in arms}
    tasks = list(values[REFERENCE])
    rows = []
    for name, of_tasks in values.items():
        means = [100 * float(of_tasks[task].mean()) for task in tasks]
        rows.append([name, says[name], *means, float(np.mean(means))])
    num = len(values[REFERENCE][tasks[0]])
    return f"nDCG@10, mean of {num} seeds", ["negatives", "which", *tasks, "mean"], rows


if __name__ == "__main__":
    end(main)
