"""A folder that holds what the commands of the pages name, in tiny: models, rows, texts, test data."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
from exports import DOCUMENTS, QUERIES, tiny_export
from routers import make_router
from shown_commands import ROOT
from souped import export_of, lora_checkpoints, write_examples, write_held_out
from test_model_cross_encoder import save_reranker
from tiny_models import TEXTS

from embedtrain.artifacts import write_json
from embedtrain.data.rows import read_rows
from embedtrain.model.parity import check_parity

COPIED = ("configs", "ablations")
LINKED = (
    *("tools", "data_recipes", "embedtrain"),
    *("Makefile", "pyproject.toml", "constraints.txt", ".pre-commit-config.yaml"),
)
NUM_PAIRS = 80
LEAVES = ("runs/leaf/leaf", "runs/leaf_ir/leaf")


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def make_pairs(seed: int, number: int = NUM_PAIRS) -> list[dict[str, object]]:
    """Questions and answers that share words, as FlagEmbedding writes them."""
    words, rng = sorted(set(" ".join(TEXTS).split())), np.random.default_rng(seed)
    drawn = [[str(word) for word in rng.choice(words, 9, replace=False)] for _ in range(number)]
    return [
        {"query": f"{' '.join(some[:4])} {seed}-{n}", "pos": [f"{' '.join(some[2:])} {seed}-{n}"]}
        for n, some in enumerate(drawn)
    ]


def write_data(place: Path) -> None:
    """Rows, texts and test data under the names that the pages give them."""
    for seed, name in enumerate(("theirs.jsonl", "pairs.jsonl")):
        write_lines(place / name, make_pairs(seed))
    rows = [{"query": one["query"], "positives": one["pos"]} for one in make_pairs(2)]
    write_lines(place / "my_pairs.jsonl", rows)
    write_lines(place / "tests" / "mine" / "asked.jsonl", make_pairs(3, 20))
    write_lines(place / "mine.jsonl", rows)
    (place / "mine.jsonl.gz").write_bytes(gzip.compress((place / "mine.jsonl").read_bytes()))
    (place / "questions.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    (place / "nli.csv").write_text(
        "premise,hypothesis,label\nA man waters beans.,Somebody is gardening.,entailment\n", encoding="utf-8"
    )
    write_held_out(place / "held-out.jsonl")
    examples = read_rows(write_examples(place / "few.parquet"))
    write_lines(place / "few.jsonl", [{"query": r.query, "positives": r.positives} for r in examples])
    (place / "rows").mkdir()
    for path in (ROOT / "rows").iterdir():
        (place / "rows" / path.name).symlink_to(path)
    write_lines(place / "rows" / "held_out" / "asked.jsonl", make_pairs(4, 20))


def write_models(place: Path) -> None:
    """A base, adapters on it, exports, a reranker, a teacher and its leaf."""
    checkpoints = lora_checkpoints(place)
    for name, checkpoint in zip("abc", checkpoints, strict=True):
        export_of(checkpoint, place / "runs" / name / "model")
    stage = place / "runs" / "a" / "tune-1a2b3c4d"
    shutil.copytree(checkpoints[0], stage / "encoder")
    shutil.copytree(checkpoints[1], stage / "snapshots" / "step-000150")
    (place / "my_base").symlink_to("base")
    save_reranker(place / "my_reranker")
    encoder, made = tiny_export(place / "made")
    for link in ("my_embedder", "my_teacher", "runs/quickstart/model", *LEAVES):
        (place / link).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, place / link)
    write_json(place / "runs/quickstart/parity.json", check_parity(encoder, made, QUERIES, DOCUMENTS))
    for leaf in LEAVES:
        make_router(place / f"{leaf}-router", made, place / "my_teacher")


def make_place(place: Path) -> Path:
    """All of it."""
    place.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name)
    for name in LINKED:
        (place / name).symlink_to(ROOT / name)
    subprocess.run(["git", "init", "--quiet", str(place)], check=True)
    write_data(place)
    write_models(place)
    return place


def copy_place(place: Path, to: Path) -> Path:
    """One's own copy, to write into; files that nobody changes are shared."""
    shutil.copytree(place, to, symlinks=True, copy_function=os.link)
    return to
