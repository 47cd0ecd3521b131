"""Tables of several trained models: their cells, kept once measured, and what their differences mean.

Runs are those of `embedtrain run`: a stopped table goes on where it was. A cell holds nDCG@10 of every query,
so that two models are compared query by query.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embedtrain.artifacts import hash_json, read_json, write_atomic, write_json
from embedtrain.config.schema import Run
from embedtrain.evaluation.measure import NUM_CANDIDATES, NUM_RANKED, by_falling_id, encode
from embedtrain.evaluation.metrics import rank_documents, retrieval_values
from embedtrain.evaluation.sets import count_tokens, read_tasks
from embedtrain.evaluation.tasks import Retrieval, cut_tasks
from embedtrain.model.st import Embedder
from embedtrain.pipeline import plan_run
from embedtrain.search import search
from embedtrain.show.progress import progress
from embedtrain.show.tables import markdown_table, print_table
from tools.negative_arms import REFERENCE, export_name
from tools.paired import Difference

Cell = dict[str, list[float]]
"""By task, nDCG@10 of each query."""
Table = tuple[str, list[str], list[list[Any]]]
METRIC = "ndcg@10"


class Named(Protocol):
    """One of the models that are compared."""

    @property
    def name(self) -> str:
        """Of its row."""
        ...


def held_out_tasks(paths: Sequence[str], max_tokens: int) -> list[Retrieval]:
    """The held-out sets, cut to so many tokens in all."""
    tasks = cut_tasks(read_tasks(paths), max_tokens, count_tokens)
    return [task for task in tasks if isinstance(task, Retrieval)]


def make_cells(
    make: Callable[..., Run],
    arms: Sequence[Named],
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


def values_of(
    cells: Mapping[int, Mapping[str, Cell]], names: Sequence[str], tasks: Sequence[Retrieval]
) -> dict[str, dict[str, np.ndarray]]:
    """By model and task, nDCG@10 of each seed and query: (S, N)."""
    return {
        name: {task.name: np.array([cells[seed][name][task.name] for seed in cells]) for task in tasks}
        for name in names
    }


def points(of_tasks: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """By task, the mean over queries of each seed, in points of 100."""
    return {task: (100 * values_SN).mean(axis=1).tolist() for task, values_SN in of_tasks.items()}


def told(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Every comparison for programs."""
    return [asdict(one) | {"mean": one.mean, "beyond_noise": one.is_real} for one in found]


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


def write_report(
    file: Path, figures: Mapping[str, Any], tables: Sequence[Table], verdict: Sequence[str]
) -> None:
    """JSON and, beside it, a page of tables; the tables and the verdict in the terminal too."""
    write_json(file.with_suffix(".json"), {**figures, "verdict": list(verdict)})
    texts = [f"**{title}**\n\n{markdown_table(columns, rows)}\n" for title, columns, rows in tables]
    write_atomic(file.with_suffix(".md"), "\n".join([*texts, *(f"- {line}" for line in verdict), ""]))
    for title, columns, rows in tables:
        print_table(title, columns, rows)
    print("\n".join(verdict), flush=True)
