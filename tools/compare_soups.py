"""Does a soup help? `python tools/compare_soups.py` trains three runs of stage 2 and averages them.

The runs start from one stage-1 checkpoint, that of the quickstart, and differ in their mix of data. Measured
on held-out sets are stage 1, every run, their uniform soup and their greedy soup; the greedy one is chosen on
rows that no run was trained on and that are no test rows. With several seeds each comparison has a paired t
interval over seeds; with one, only the bootstrap interval over test queries.

Runs are those of `embedtrain run`: a stopped table goes on where it was. Writes JSON and a Markdown table,
prints the verdict last.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.api import run as run_stages  # noqa: E402
from embedtrain.artifacts import read_json  # noqa: E402
from embedtrain.cli.ending import end  # noqa: E402
from embedtrain.config.load import load_machine, resolved  # noqa: E402
from embedtrain.config.schema import Run  # noqa: E402
from embedtrain.evaluation.tasks import Retrieval  # noqa: E402
from embedtrain.model.st import open_sentence_transformer  # noqa: E402
from embedtrain.pipeline import plan_run  # noqa: E402
from tools.cells import (  # noqa: E402
    Cell,
    Table,
    difference_table,
    held_out_tasks,
    interval,
    make_cells,
    points,
    told,
    values_of,
    verdicts,
    write_report,
)
from tools.negative_arms import REFERENCE  # noqa: E402
from tools.paired import Difference, Values, compare, query_interval  # noqa: E402
from tools.soup_arms import (  # noqa: E402
    ARMS,
    GREEDY,
    MIDDLE,
    RUNS,
    SIZES,
    SOUPS,
    TASKS,
    comparisons,
    hold_out,
    make_run,
    stage_name,
)

Choices = Mapping[int, Mapping[str, Any]]
"""By seed, the greedy soup's `soup.json`."""


def main() -> int:
    """Train what is missing, measure it, tell."""
    args = parse_arguments()
    size, machine = SIZES[args.size], load_machine(args.machine)
    tasks = held_out_tasks(TASKS, size.test_tokens)
    hold_out(args.folder / args.size, size.held_out_rows)
    open_model = partial(open_sentence_transformer, device=machine.device)
    cells: dict[int, dict[str, Cell]] = {}
    choices: dict[int, dict[str, Any]] = {}
    for seed in args.seeds:
        runs = partial(make_run, args.size, str(args.folder), seed=seed)
        cells[seed] = make_cells(runs, ARMS, seed, tasks, partial(run_stages, machine=machine), open_model)
        choices[seed] = greedy_choice(runs(arms=ARMS), seed)
        report(args, tasks, cells, choices)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Does a soup help")
    parser.add_argument("--size", choices=SIZES, default="quickstart")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--machine", type=Path, help="machine file; absent: one CPU process")
    parser.add_argument("--folder", type=Path, default=Path("runs/soups"), help="of runs and cells")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/soup"), help="of JSON and table")
    return parser.parse_args()


def greedy_choice(run: Run, seed: int) -> dict[str, Any]:
    """What the greedy soup of a seed says of its making: scores, who was kept and who was refused."""
    name = stage_name(GREEDY, seed)
    (folder,) = (plan.folder for plan in plan_run(run) if plan.stage.name == name)
    made: dict[str, Any] = read_json(folder / "soup.json")
    return {key: made[key] for key in ("ingredients", "order", "score")}


def report(
    args: argparse.Namespace,
    tasks: Sequence[Retrieval],
    cells: Mapping[int, Mapping[str, Cell]],
    choices: Choices,
) -> None:
    """Write and print what is measured so far."""
    values: dict[str, Values] = dict(values_of(cells, [REFERENCE, *(arm.name for arm in ARMS)], tasks))
    values[MIDDLE] = middle([values[arm.name] for arm in RUNS])
    found = [compare(*pair, values) for pair in comparisons()]
    figures = {
        "size": asdict(SIZES[args.size]),
        "seeds": list(cells),
        "tasks": {task.name: task.sizes for task in tasks},
        "run": resolved(make_run(args.size, "runs", ARMS, args.seeds[0])),
        "ndcg@10": {name: points(of_tasks) for name, of_tasks in values.items()},
        "differences": told(found),
        "greedy": {str(seed): choice for seed, choice in choices.items()},
    }
    tables = [score_table(values), difference_table(found), choice_table(choices)]
    write_report(args.out / f"compare_{args.size}", figures, tables, list(says(found, len(cells))))


def middle(runs: Sequence[Values]) -> Values:
    """What a run drawn at random scores: the mean of all, query by query."""
    return {task: np.mean([of_tasks[task] for of_tasks in runs], axis=0) for task in runs[0]}


def score_table(values: Mapping[str, Values]) -> Table:
    """The nDCG@10 of each model by task, means over seeds, and the interval of the mean over queries."""
    says = {REFERENCE: "before stage 2", MIDDLE: "a run drawn at random"} | {a.name: a.says for a in ARMS}
    tasks = list(values[REFERENCE])
    rows = []
    for name in (REFERENCE, *(arm.name for arm in RUNS), MIDDLE, *(arm.name for arm in SOUPS)):
        by_query = [100 * values[name][task].mean(axis=0) for task in tasks]
        means = [float(values_N.mean()) for values_N in by_query]
        rows.append([name, says[name], *means, float(np.mean(means)), interval_of(query_interval(by_query))])
    num = len(values[REFERENCE][tasks[0]])
    columns = ["model", "which", *tasks, "mean", "over queries"]
    return f"nDCG@10, mean of {num} seed{'s' * (num > 1)}", columns, rows


def choice_table(choices: Choices) -> Table:
    """How the greedy soup of each seed was chosen: the best first, each tried with those kept before it."""
    rows = []
    for seed, choice in choices.items():
        by_name = {one["name"]: one for one in choice["ingredients"]}
        for name in choice["order"]:
            one = by_name[name]
            kept = "yes" if one["kept"] else "no"
            rows.append([seed, name, one["score"], one["tried_score"], kept, one["weight"]])
    columns = ["seed", "run", "own score", "with those kept", "kept", "weight"]
    return "Greedy soups: nDCG@10 on the validation rows", columns, rows


def interval_of(bounds: tuple[float, float]) -> str:
    """`[41.2, 45.0]`."""
    return "[{:.1f}, {:.1f}]".format(*bounds)


def says(found: Sequence[Difference], num_seeds: int) -> Iterator[str]:
    """What each soup is above a run drawn at random, then what the seeds say of all comparisons."""
    for one in found:
        if one.second == MIDDLE:
            over = interval(one.query_low, one.query_high)
            yield f"The {one.first} soup is {one.mean:+.2f} points from the {MIDDLE} {over} (over queries)."
    yield from verdicts(found, num_seeds)


if __name__ == "__main__":
    end(main)
