"""Hand-made candidates of two small sources, and a score stage on them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from mined_sources import WORDS

from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.mining.tables import (
    CANDIDATES,
    CORPUS,
    CORPUS_SCHEMA,
    Column,
    Mined,
    candidates_schema,
    corpus_table,
    mined_table,
)
from embedtrain.stages.context import StageContext

RETRIEVER = "found"
K = 5


def make_source(seed: int, num_rows: int) -> tuple[list[Row], list[str], Mined]:
    """Rows with one to three positives, every other row mined, their documents and ragged candidates."""
    rng = np.random.default_rng(seed)
    documents = [" ".join([*rng.choice(WORDS, rng.integers(2, 12)), str(number)]) for number in range(30)]
    rows, lists = [], []
    for number in range(num_rows):
        places = rng.permutation(30)[: K + 3]
        positives = [documents[place] for place in places[-rng.integers(1, 4) :]]
        negatives = [documents[places[0]]]
        scores = {"positive_scores": (0.5,) * len(positives), "negative_scores": (0.25,)}
        rows.append(
            Row(f"{rng.choice(WORDS)} {number}", tuple(positives), negatives=tuple(negatives), **scores)
        )
        lists.append(places[: rng.integers(1, K + 1)] if number % 7 else places[-K:])
    mined_Q = np.arange(0, num_rows, 2)
    ids_QK = np.full((len(mined_Q), K), -1, np.int64)
    for line, number in enumerate(mined_Q):
        ids_QK[line, : len(lists[number])] = lists[number]
    ranks_QK = np.where(ids_QK >= 0, np.arange(1, K + 1), 0).astype(np.int32)
    found = np.where(ids_QK >= 0, rng.random(ids_QK.shape), np.nan).astype(np.float32)
    own = [rng.random(len(rows[number].positives)).astype(np.float32) for number in mined_Q]
    return rows, documents, Mined(mined_Q, ids_QK, ranks_QK, {RETRIEVER: Column(found, own)})


def write_mined(folder: Path) -> dict[str, tuple[list[Row], list[str], Mined]]:
    """Rows and what a mine stage would leave of them in `folder/mined`, by source."""
    made = {"one": make_source(0, 40), "two": make_source(1, 24)}
    (folder / "mined").mkdir(parents=True)
    with (
        pq.ParquetWriter(folder / "mined" / CORPUS, CORPUS_SCHEMA) as corpus,
        pq.ParquetWriter(folder / "mined" / CANDIDATES, candidates_schema([RETRIEVER])) as candidates,
    ):
        for name, (rows, documents, mined) in made.items():
            write_rows(folder / f"{name}.parquet", rows)
            keys = np.array([text_key(text) for text in documents], np.int64)
            corpus.write_table(corpus_table(name, keys, documents))
            candidates.write_table(mined_table(name, mined))
    return made


def score_context(
    folder: Path,
    place: str,
    teachers: list[dict],
    base: str = "none",
    num_processes: int = 1,
    **stage: object,
) -> StageContext:
    """A score stage over those candidates, in a folder of its own."""
    run = Run.model_validate(
        {
            "name": "r",
            "folder": str(folder),
            "base": {"model": base},
            "sources": {name: {"rows": str(folder / f"{name}.parquet")} for name in ("one", "two")},
            "stages": [
                {"name": "mined", "kind": "mine", "retrievers": [{"kind": "bm25", "name": RETRIEVER}]},
                {"name": "scored", "kind": "score", "candidates": "mined", "teachers": teachers} | stage,
            ],
        }
    )
    own = folder / place
    own.mkdir(exist_ok=True)
    machine = Machine(num_processes=num_processes)
    return StageContext(run, find_stage(run, "scored"), machine, own, {"mined": folder / "mined"})
