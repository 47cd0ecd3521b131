"""Which negatives help? `python tools/compare_negatives.py` trains one short run for each way to choose them.

Every arm of `tools/negative_arms.py` starts from one stage-1 checkpoint and sees the same rows in the same
batches; only the negatives differ. What is told is nDCG@10 on held-out sets, the mean over them, with five
paired seeds: the difference, its 95 % intervals over seeds (paired t) and over test queries (bootstrap), and
the difference that so many seeds would find. A difference counts only where neither interval holds zero.

Runs are those of `embedtrain run`: a stopped table goes on where it was. A cell, once measured, is kept below
the folder, and its model removed. Writes JSON and a Markdown table, prints the verdict last.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.api import run as run_stages  # noqa: E402
from embedtrain.artifacts import hash_json, read_json, write_atomic, write_json  # noqa: E402
from embedtrain.config.load import load_machine, resolved  # noqa: E402
from embedtrain.config.schema import Run  # noqa: E402
from embedtrain.evaluation.measure import NUM_CANDIDATES, NUM_RANKED, by_falling_id, encode  # noqa: E402
from embedtrain.evaluation.metrics import rank_documents, retrieval_values  # noqa: E402
from embedtrain.evaluation.tasks import Retrieval, cut_tasks  # noqa: E402
from embedtrain.model.st import Embedder, open_sentence_transformer  # noqa: E402
from embedtrain.pipeline import plan_run  # noqa: E402
from embedtrain.search import search  # noqa: E402
from embedtrain.show.progress import progress  # noqa: E402
from embedtrain.show.tables import markdown_table, print_table  # noqa: E402
from embedtrain.stages.evaluate import count_tokens, read_tasks  # noqa: E402
from tools.negative_arms import (  # noqa: E402
    ARMS,
    REFERENCE,
    SIZES,
    TASKS,
    Arm,
    comparisons,
    export_name,
    make_run,
)
from tools.paired import Difference, compare  # noqa: E402

Cell = dict[str, list[float]]
"""By task, nDCG@10 of each query."""
METRIC = "ndcg@10"


def main() -> int:
    """Train what is missing, measure it, tell."""
    args = parse_arguments()
    arms = [arm for arm in ARMS if not args.arms or arm.name in args.arms]
    tasks = test_tasks(SIZES[args.size].test_tokens)
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


def test_tasks(max_tokens: int) -> list[Retrieval]:
    """The held-out sets, cut to so many tokens in all."""
    tasks = cut_tasks(read_tasks(TASKS), max_tokens, count_tokens)
    return [task for task in tasks if isinstance(task, Retrieval)]


# --- cells --------------------------------------------------------------------------------------------------


def make_cells(
    make: Callable[..., Run],
    arms: Sequence[Arm],
    seed: int,
    tasks: Sequence[Retrieval],
    train: Callable[[Run], object],
    open_model: Callable[[str], Embedder],
) -> dict[str, Cell]:
    """The cells of one seed, that of stage 1 among them; only what is missing is trained and measured.

    `make(arms=…, reference=…)` gives the run of some arms, `train` does its stages.
    """
    files = cell_files(make(arms=arms), tasks)
    wanted = {name: files[export_name(name, seed)] for name in (REFERENCE, *(arm.name for arm in arms))}
    missing = [arm for arm in arms if not wanted[arm.name][0].is_file()]
    told = f"{len(arms) - len(missing)} of {len(arms)} cells are there"
    print(f"\nseed {seed}: {told}; to train: {', '.join(arm.name for arm in missing) or 'none'}", flush=True)
    reference = not wanted[REFERENCE][0].is_file()
    if missing or reference:
        train(make(arms=missing, reference=reference))
    with progress(f"measure seed {seed}", total=len(wanted), unit="model") as bar:
        for name, (file, model) in wanted.items():
            if not file.is_file():
                write_json(file, measure(open_model(str(model)), tasks))
                shutil.rmtree(model.parent)
            bar.advance(1, model=name)
    return {name: read_json(file) for name, (file, _) in wanted.items()}


def cell_files(run: Run, tasks: Sequence[Retrieval]) -> dict[str, tuple[Path, Path]]:
    """By export stage, its cell and its model. Another run, test set or metric has other cells."""
    identity = hash_json([METRIC, *map(asdict, tasks)])[:8]
    cells = Path(run.folder) / "cells"
    return {
        plan.stage.name: (cells / f"{plan.folder.name}-{identity}.json", plan.folder / "model")
        for plan in plan_run(run)
        if plan.stage.kind == "export"
    }


def measure(embedder: Embedder, tasks: Sequence[Retrieval]) -> Cell:
    """nDCG@10 of every query, by exact search over all documents, as `embedtrain evaluate` has it."""
    return {task.name: query_values(embedder, task).tolist() for task in tasks}


def query_values(embedder: Embedder, task: Retrieval) -> np.ndarray:
    """nDCG@10 of every query of a task."""
    order = by_falling_id(task)
    queries = encode(embedder, task.queries, side="query")
    documents = encode(embedder, [task.documents[i] for i in order], side="document")
    ids, scores = search(queries, documents, min(NUM_CANDIDATES, len(documents)))
    ranked = [
        rank_documents([task.document_ids[order[i]] for i in row], row_scores, NUM_RANKED)
        for row, row_scores in zip(ids, scores, strict=True)
    ]
    return retrieval_values(ranked, [task.judged[name] for name in task.query_ids])[METRIC]


# --- report -------------------------------------------------------------------------------------------------


def report(
    args: argparse.Namespace,
    arms: Sequence[Arm],
    tasks: Sequence[Retrieval],
    cells: Mapping[int, Mapping[str, Cell]],
) -> None:
    """Write and print what is measured so far."""
    names = [REFERENCE, *(arm.name for arm in arms)]
    values = {
        name: {task.name: np.array([cells[seed][name][task.name] for seed in cells]) for task in tasks}
        for name in names
    }
    found = [compare(*pair, values) for pair in comparisons([arm.name for arm in arms])]
    tables = [score_table(arms, values), difference_table(found)]
    verdict = list(verdicts(found, len(cells)))
    figures = {
        "size": asdict(SIZES[args.size]),
        "seeds": list(cells),
        "tasks": {task.name: task.sizes for task in tasks},
        "run": resolved(make_run(args.size, "runs", arms, args.seeds[0])),
        "ndcg@10": {name: points(of_tasks) for name, of_tasks in values.items()},
        "differences": [asdict(one) | {"mean": one.mean, "beyond_noise": one.is_real} for one in found],
        "verdict": verdict,
    }
    write_json(args.out / f"{args.size}.json", figures)
    texts = [f"**{title}**\n\n{markdown_table(columns, rows)}\n" for title, columns, rows in tables]
    write_atomic(args.out / f"{args.size}.md", "\n".join([*texts, *(f"- {line}" for line in verdict), ""]))
    for title, columns, rows in tables:
        print_table(title, columns, rows)
    print("\n".join(verdict), flush=True)


def points(of_tasks: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """By task, the mean over queries of each seed, in points of 100."""
    return {task: (100 * values_SN).mean(axis=1).tolist() for task, values_SN in of_tasks.items()}


Table = tuple[str, list[str], list[list[Any]]]


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


def difference_table(found: Sequence[Difference]) -> Table:
    """Every comparison with its intervals."""
    columns = ["of", "less", "difference", "over seeds", "over queries", "p", "detectable", "beyond noise"]
    rows = [
        [
            one.first,
            one.second,
            f"{one.mean:+.2f}",
            interval(one.low, one.high),
            interval(one.query_low, one.query_high),
            None if one.p is None else f"{one.p:.3f}",
            one.detectable,
            "yes" if one.is_real else "no",
        ]
        for one in found
    ]
    return "Differences of the mean in points, with 95 % intervals", columns, rows


def interval(low: float | None, high: float | None) -> str | None:
    """`[-0.4, +1.2]`."""
    return None if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"


def verdicts(found: Sequence[Difference], num_seeds: int) -> Iterator[str]:
    """What the figures say, and what they do not."""
    if num_seeds < 2:
        yield "One seed: nothing can be said of what seeds explain; no difference is claimed."
        return
    least = sorted(one.detectable for one in found if one.detectable is not None)
    middle = float(np.median(least))
    yield (
        f"{num_seeds} paired seeds find a true difference of {middle:.2f} points four times out of five "
        f"(the middle of {len(found)} comparisons, which reach from {least[0]:.2f} to {least[-1]:.2f})."
    )
    real = [one for one in found if one.is_real]
    for one in real:
        side = "above" if one.mean > 0 else "below"
        yield f"Beyond noise: {one.first} is {abs(one.mean):.2f} points {side} {one.second}."
    within = [f"{one.first} and {one.second}" for one in found if not one.is_real]
    if within:
        yield f"Within noise: {'; '.join(within)}."
    chance = f"chance alone would make about {0.05 * len(found):.1f}"
    yield f"{len(real)} of {len(found)} differences are beyond noise; {chance}."


if __name__ == "__main__":
    sys.exit(main())
