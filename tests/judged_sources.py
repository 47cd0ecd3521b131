"""Mined and scored candidates written by hand, and the select stage run on them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.mining.tables import (
    CANDIDATES,
    CORPUS,
    CORPUS_SCHEMA,
    SCORES,
    Column,
    Mined,
    candidates_schema,
    corpus_table,
    mined_table,
    scores_schema,
    scores_table,
    table_writer,
)
from embedtrain.stages import select
from embedtrain.stages.context import StageContext

WORDS = ["apple", "pear", "plum", "train", "plane", "river", "stone", "cloud", "paper", "glass"]


def make_rows(num: int, seed: int) -> list[Row]:
    """Queries of three words; one or two positives of two of them and another."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num):
        query = rng.choice(WORDS, 3, replace=False).tolist()
        positives = (f"{query[0]} {query[1]} <b>{word}</b>" for word in rng.choice(WORDS, 1 + number % 2))
        rows.append(Row(f"{' '.join(query)} {number}", tuple(dict.fromkeys(positives))))
    return rows


def score_column(query: str, texts: list[str], rng: np.random.Generator, unit: float) -> np.ndarray:
    """Words in common, and noise; float32."""
    common = [len(set(query.split()) & set(text.split())) for text in texts]
    return (unit * (np.array(common) / 4 + rng.normal(scale=0.15, size=len(texts)))).astype(np.float32)


Found = tuple[Mined, dict[str, Column], list[str]]
"""Candidates, every column's scores, and the texts of the corpus, of one source."""


def write_tables(mined: Path, scored: Path, sources: Mapping[str, Found]) -> None:
    """What mine leaves, with the column `base`, and score, where there are other columns."""
    taught = [name for name in next(iter(sources.values()))[1] if name != "base"]
    for folder in (mined, scored) if taught else (mined,):
        folder.mkdir(parents=True, exist_ok=True)
    with (
        table_writer(mined / CANDIDATES, candidates_schema(["base"])) as candidates,
        table_writer(mined / CORPUS, CORPUS_SCHEMA) as corpus,
    ):
        for name, (found, columns, texts) in sources.items():
            candidates.write_table(mined_table(name, replace(found, columns={"base": columns["base"]})))
            corpus.write_table(corpus_table(name, np.array([text_key(text) for text in texts]), texts))
    if taught:
        with table_writer(scored / SCORES, scores_schema(taught)) as scores:
            for name, (found, columns, _) in sources.items():
                own = {column: columns[column] for column in taught}
                scores.write_table(scores_table(name, found.query_row_Q, found.present_QK, own))


def mine_by_hand(rows: list[Row], top_k: int, units: Mapping[str, float], seed: int) -> Found:
    """Candidates by the first column's score, every column (unit by name), and the corpus."""
    rng = np.random.default_rng(seed)
    texts = list(dict.fromkeys(text for row in rows for text in row.positives))
    ids_QK = np.zeros((len(rows), top_k), np.int64)
    columns = {name: Column(np.zeros((len(rows), top_k), np.float32), []) for name in units}
    for number, row in enumerate(rows):
        of_all = {name: score_column(row.query, texts, rng, unit) for name, unit in units.items()}
        ids_QK[number] = np.argsort(-next(iter(of_all.values())), kind="stable")[:top_k]
        own = [texts.index(text) for text in row.positives]
        for name, scores in of_all.items():
            columns[name].score_QK[number] = scores[ids_QK[number]]
            columns[name].positive_scores.append(scores[own])
    ranks_QK = np.tile(np.arange(1, top_k + 1, dtype=np.int32), (len(rows), 1))
    return Mined(np.arange(len(rows)), ids_QK, ranks_QK, columns), columns, texts


def select_by_hand(
    folder: Path, sources: dict[str, list[Row]], stage: dict[str, object], top_k: int = 12
) -> tuple[StageContext, dict[str, object]]:
    """Write the rows and the folders of mine (column `dense`) and score (`teacher`), and run select."""
    values = {name: {"rows": str(folder / f"{name}.parquet")} for name in sources}
    run = Run.model_validate(
        {
            "name": "r",
            "folder": str(folder),
            "base": {"model": "none"},
            "sources": values,
            "stages": [
                {"name": "dense", "kind": "mine", "from": "base", "top_k": top_k},
                {"name": "taught", "kind": "score", "candidates": "dense", "teachers": [{"kind": "bm25"}]},
                {"name": "chosen", "kind": "select", "candidates": "dense", "scores": "taught"} | stage,
            ],
        }
    )
    inputs = {name: folder / name for name in ("dense", "taught")}
    (folder / "chosen").mkdir(parents=True, exist_ok=True)
    found: dict[str, Found] = {}
    for seed, (name, rows) in enumerate(sources.items()):
        write_rows(folder / f"{name}.parquet", rows)
        found[name] = mine_by_hand(rows, top_k, {"base": 1.0, "teacher": 8.0}, seed)
    write_tables(inputs["dense"], inputs["taught"], found)
    context = StageContext(run, find_stage(run, "chosen"), Machine(), folder / "chosen", inputs)
    return context, select.run_stage(context)
