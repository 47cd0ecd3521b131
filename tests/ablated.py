"""A tiny run whose variants are trained in a second, and its stages done in this process."""

import json
from pathlib import Path

import numpy as np
from tiny_models import TEXTS, save_tiny

from embedtrain import __version__
from embedtrain.artifacts import DONE, mark_done, read_json, write_json
from embedtrain.config.load import resolved
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.pipeline import StagePlan
from embedtrain.stages.context import STAGE_FILE
from embedtrain.stages.entry import work_on
from embedtrain.stages.probe import probe

TRAIN = {
    "kind": "train",
    "tuning": "lora",
    "lora": {"rank": 2, "alpha": 4},
    "batch_size": 4,
    "steps": 2,
    "lr": 1e-2,
}


def write_run(folder: Path) -> Path:
    """A run file of two train stages, a soup and two exports; its base, rows and test data beside it."""
    words = " ".join(TEXTS).split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 6)) for _ in range(60)]
    save_tiny("llama", folder / "base")
    rows = [Row(" ".join(text.split()[:3]) + f" {n}", (text,)) for n, text in enumerate(texts[:40])]
    write_rows(folder / "rows.parquet", rows)
    asked = [{"query": row.query, "pos": [row.positives[0]]} for row in rows]
    pairs = [{"text1": texts[n], "text2": texts[n + 30], "score": n % 6} for n in range(30)]
    (folder / "tests").mkdir()
    for name, lines in {"find": asked, "alike": pairs}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "tests" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "run.yaml").write_text(json.dumps(content(folder), indent=1))
    return folder / "run.yaml"


def content(folder: Path) -> dict[str, object]:
    """What the run file holds."""
    focal = {"kind": "infonce", "temperature": 0.05, "focal": {"gamma": 0.5}}
    return {
        "name": "tiny",
        "folder": str(folder / "runs"),
        "base": {"model": str(folder / "base")},
        "text": {"max_query_tokens": 16, "max_document_tokens": 24},
        "sources": {"one": {"rows": str(folder / "rows.parquet")}},
        "stages": [
            TRAIN | {"name": "first", "objective": {"terms": [{"kind": "infonce", "temperature": 0.05}]}},
            TRAIN | {"name": "second", "from": "first", "objective": {"terms": [focal]}},
            TRAIN | {"name": "again", "from": "first", "objective": {"terms": [focal]}, "seed": 8},
            {"name": "soup", "kind": "soup", "from": ["second", "again"]},
            {"name": "tuned", "kind": "export", "from": "second", "num_parity_texts": 4, "link": "model"},
            {"name": "souped", "kind": "export", "from": "soup", "num_parity_texts": 4},
            {"name": "report", "kind": "evaluate", "models": ["tuned"], "data": [str(folder / "tests")]},
        ],
    }


def work_here(plan: StagePlan, run: Run, machine: Machine) -> None:
    """Do a stage in this process, which has torch already."""
    context = {
        "run": resolved(run),
        "stage": plan.stage.name,
        "machine": machine.model_dump(mode="json"),
        "inputs": {name: str(path) for name, path in plan.inputs.items()},
    }
    write_json(plan.partial / STAGE_FILE, context)
    work_on(plan.partial)
    record = read_json(plan.partial / DONE) | {"parts": plan.parts, "embedtrain": __version__}
    mark_done(plan.partial, record)
    plan.partial.rename(plan.folder)


def ask_here(run: Run, root: Path) -> None:
    """Look at what needs torch, in this process."""
    probe(write_json(root / ".probe.json", resolved(run)))
