"""A finished run written by hand: every folder and record that its page is made of, and no model."""

import json
from functools import partial
from pathlib import Path

from test_evaluation_report import search_task
from word_embedder import WordEmbedder

from embedtrain.artifacts import mark_done, write_json
from embedtrain.config.load import find_stage, resolved
from embedtrain.config.references import inputs_of
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.evaluation.measure import Remembering
from embedtrain.evaluation.report import report_json
from embedtrain.evaluation.results import Figure, Result
from embedtrain.stages.context import StageContext
from embedtrain.stages.measuring import Found
from embedtrain.stages.run_report.drawing import run_page
from embedtrain.stages.run_report.machine import ran_on

OBJECTIVE = {"terms": [{"kind": "infonce", "temperature": 0.03}, {"kind": "spread", "weight": 0.5}]}
TRAIN = {"kind": "train", "objective": OBJECTIVE, "batch_size": 4, "lr": 1e-3}
STAGES = [
    {"name": "weak", "steps": 40, **TRAIN},
    {"name": "mined", "kind": "mine", "from": "weak", "top_k": 9},
    {"name": "hard", "kind": "select", "candidates": "mined", "num_negatives": 2},
    {"name": "tuned", "from": "weak", "rows": "hard", "steps": 2, "seed": 8, **TRAIN},
    {"name": "before", "kind": "export", "from": "base", "attention": "causal"},
    {"name": "final", "kind": "export", "from": "tuned", "link": "model"},
    {"name": "report", "kind": "evaluate", "models": ["before", "final"], "data": ["tests"]},
]
CARD = "# Questions\n\n## Licence\n\nCC0 1.0\n\n## MTEB overlap\n\nnone known\n"
COUNTS = {"candidates": {"kept": 7, "perc_pos": 3, "not_needed": 8}, "rows": {"dropped": 1}}
FRONT = "---\nlibrary_name: sentence-transformers\ntags:\n- embedtrain\n---\n"
README = f"{FRONT}\n# r model\n\nText.\n\n## Limits\n\n- short\n"


def reported_run(place: Path) -> Run:
    """The run, on rows of two sources in the folder; nothing of it is done."""
    for name, count in (("asked", 40), ("titles", 20)):
        folder = place / name
        write_rows(folder / "train.parquet", [Row(f"{name} {n}", (f"text {n}",)) for n in range(count)])
        (folder / "card.md").write_text(CARD)
    sources = {
        "asked": {"rows": str(place / "asked/train.parquet"), "weight": 3},
        "titles": {"rows": str(place / "titles/train.parquet"), "max_query_tokens": 12},
    }
    base = {"model": "pip:some-base==1.0", "keep_first_layers": 4}
    values = {"name": "r", "folder": str(place / "runs"), "base": base, "sources": sources, "stages": STAGES}
    return Run.model_validate(values)


def results() -> list[Result]:
    """Two models on a held-out and an in-domain task."""
    return [
        Result(model, task, "retrieval", "ndcg@10", {"ndcg@10": Figure(value, value - 4, value + 3)},
               {"queries": 20}, {"queries": 99}, 1.0)
        for model, task, value in (("before", "faq", 31.0), ("final", "faq", 62.5), ("final", "titles", 80.0))
    ]  # fmt: skip


def steps(source: str, first: int, last: int) -> list[dict]:
    """Lines of a curve, diagnosed every ten steps."""
    lines = []
    for n in range(first, last + 1):
        line = {"step": n, "source": source, "loss": 3 / n, "infonce": 2 / n, "spread": 1 / n, "lr": 1e-3 / n,
                "gradient_norm": 1.5, "tokens": 50, "seconds": 0.5, "tokens_per_second": 100.0}  # fmt: skip
        lines.append(line | ({"diagnostics/accuracy_at_1": 0.5} if n % 10 == 1 else {}))
    return lines


def write_stage(run: Run, name: str, facts: dict, folders: dict[str, Path], *, done: bool = True) -> Path:
    """The folder of a stage as the pipeline and the stage leave it."""
    folder = Path(run.folder) / run.name / f"{name}-0123abcd{'' if done else '.partial'}"
    stage = next(stage for stage in run.stages if stage.name == name)
    inputs = {other: str(folders[other]) for other in inputs_of(run, stage)}
    machine = Machine().model_dump(mode="json")
    write_json(
        folder / "stage.json", {"run": resolved(run), "stage": name, "machine": machine, "inputs": inputs}
    )
    if done:
        mark_done(folder, {"stage": name, "seconds": 90.0, "facts": facts, **ran_on()})
    folders[name] = folder
    return folder


def evaluated(run: Run, folders: dict[str, Path]) -> str:
    """The page as the evaluate stage writes it, by two models of words."""
    words = {name: WordEmbedder(seed=seed, name=name) for seed, name in enumerate(("before", "final"))}
    own = [Remembering(name, partial(words.__getitem__, name)) for name in words]
    inputs = {name: folders[name] for name in words}
    context = StageContext(run, find_stage(run, "report"), Machine(), folders["report"], inputs)
    return run_page(context, Found(results(), [], {}), {"titles"}, own, search_task())


def write_run(run: Run, until: str = "report") -> dict[str, Path]:
    """Folders of the stages up to this one, all done."""
    folders: dict[str, Path] = {}
    curves = {"weak": [*steps("asked", 1, 30), *steps("titles", 31, 40)], "tuned": steps("asked", 1, 2)}
    for stage in run.stages:
        trained = (
            {"steps": len(curves[stage.name]), "tokens": 50 * len(curves[stage.name])}
            if stage.name in curves
            else {}
        )
        facts = {"sources": {"asked": COUNTS, "titles": COUNTS}} if stage.kind == "select" else trained
        folder = write_stage(run, stage.name, facts, folders)
        if stage.name in curves:
            (folder / "curve.jsonl").write_text(
                "".join(json.dumps(line) + "\n" for line in curves[stage.name])
            )
        if stage.kind == "select":
            for name in run.sources:
                write_rows(folder / "rows" / f"{name}.parquet", [Row("q", ("p",), ("n", "m"))] * 15)
        if stage.kind == "export":
            (folder / "model").mkdir()
            (folder / "model/README.md").write_text(README)
        if stage.kind == "evaluate":
            write_json(folder / "report.json", report_json(results(), {"titles"}))
        if stage.name == until:
            break
    return folders
