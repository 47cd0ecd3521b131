"""Small sources of rows, bare and full, and a run that trains a tiny model on them."""

from pathlib import Path

from tiny_runs import tiny_context, tiny_run

from embedtrain.config.load import find_stage
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row, write_rows
from embedtrain.stages.context import StageContext

BARE = [Row(f"query {n}", (f"positive {n}",)) for n in range(6)]
FULL = [
    Row(
        f"question {n}",
        (f"answer {n}", f"second answer {n}"),
        (f"wrong {n}", f"false {n}"),
        positive_scores=(0.9, 0.8),
        negative_scores=(0.3, 0.1),
        score=float(n % 3),
        label=f"class {n % 2}",
    )
    for n in range(6)
]


def make_run(folder: Path, terms: list[dict], sources: dict[str, dict] | None = None, **stage: object) -> Run:
    """A run whose stage `tune` trains a tiny model on the sources `bare` and `full`."""
    settings = {"batch_size": 4, "num_negatives": 2, "steps": 3, "lr": 1e-3, "lora": {"rank": 2}}
    tune = {"name": "tune", "kind": "train", "objective": {"terms": terms}} | settings | stage
    return tiny_run(folder, sources or {"bare": {}, "full": {}}, tune)


def stage_of(run: Run) -> Train:
    stage = find_stage(run, "tune")
    assert isinstance(stage, Train)
    return stage


def context_of(run: Run, name: str = "tune-1.partial", **inputs: Path) -> StageContext:
    return tiny_context(run, "tune", name, **inputs)


def write_sources(folder: Path) -> None:
    write_rows(folder / "bare.parquet", BARE)
    write_rows(folder / "full.parquet", FULL)
