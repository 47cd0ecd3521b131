"""Small sources of rows, and mining them with an encoder of words."""

import shutil
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
from word_embedder import WordEmbedder

from embedtrain.artifacts import WORK
from embedtrain.config.load import find_stage
from embedtrain.config.mining import Mine
from embedtrain.config.retrievers import Retriever
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.dist import Processes
from embedtrain.mining.judges import Judge, open_judge
from embedtrain.mining.judges.vectors import Means, VectorJudge
from embedtrain.mining.judges.writers import SourceWriter
from embedtrain.stages import mine
from embedtrain.stages.context import StageContext

WORDS = ["apple", "pear", "plum", "train", "plane", "river", "stone", "cloud", "paper", "glass"]


class WordEncoder:
    """An encoder of words; the side, its template, the instruction and the limit change the vector."""

    dim = 24

    def __init__(self) -> None:
        self.words = WordEmbedder(self.dim)
        self.encoded: list[str] = []
        self.templates = {"query": "{text}", "document": "{text}"}

    def with_templates(self, query: str, document: str) -> "WordEncoder":
        other = copy(self)
        other.templates = {"query": query, "document": document}
        return other

    def encode(
        self,
        texts: Sequence[str],
        side: str,
        *,
        instruction: str,
        max_tokens: int | None,
        tokens_per_batch: int,
        normalize: bool,
    ) -> np.ndarray:
        self.encoded += texts
        cut = [" ".join(text.split()[:max_tokens]) for text in texts]
        lead = "asked " if side == "query" else ""
        written = [self.templates[side].replace("{text}", text) for text in cut]
        return self.words.encode([f"{lead}{instruction} {text}" for text in written], side=side)


def make_rows(num: int, seed: int, num_positives: int = 1) -> list[Row]:
    """Queries of a few words, and positives that share two of them."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num):
        query = rng.choice(WORDS, rng.integers(2, 7)).tolist()
        others = [rng.choice(WORDS, rng.integers(1, 5)).tolist() for _ in range(num_positives)]
        positives = dict.fromkeys(" ".join(query[:2] + words) for words in others)
        rows.append(Row(" ".join(query), tuple(positives)))
    return rows


def write_sources(folder: Path) -> dict[str, list[Row]]:
    """Two sources of rows, one of them with several positives a row."""
    made = {"one": make_rows(40, 0), "two": make_rows(25, 1, num_positives=3)}
    for name, lines in made.items():
        write_rows(folder / f"{name}.parquet", lines)
    return made


def make_run(folder: Path, sources: dict[str, dict], mined: dict, chosen: dict) -> Run:
    return Run.model_validate(
        {
            "name": "r",
            "folder": str(folder),
            "base": {"model": "none"},
            "sources": {
                name: {"rows": str(folder / f"{name}.parquet")} | values for name, values in sources.items()
            },
            "stages": [
                {"name": "mined", "kind": "mine", "from": "base"} | mined,
                {"name": "chosen", "kind": "select", "candidates": "mined"} | chosen,
            ],
        }
    )


def context_of(run: Run, stage: str, folder: Path, **inputs: Path) -> StageContext:
    inputs |= {"mined": folder / "r" / "mined"} if stage == "chosen" else {}
    place = folder / "r" / stage
    place.mkdir(parents=True, exist_ok=True)
    return StageContext(run, find_stage(run, stage), Machine(), place, inputs)


def mine_with_words(
    run: Run, folder: Path, *, keep_units: bool = False, **inputs: Path
) -> tuple[dict, WordEncoder]:
    """Facts by source, and the encoder of words that stood for the base; units go where all went well."""
    context = context_of(run, "mined", folder, **inputs)
    encoder = WordEncoder()
    assert isinstance(context.stage, Mine)
    judges = [word_judge(context, encoder, judge) for judge in context.stage.judges]
    facts = mine.mine_sources(context, context.stage, judges, Processes(0, 1))
    if not keep_units:
        shutil.rmtree(context.folder / WORK)
    return facts, encoder


def word_judge(context: StageContext, encoder: WordEncoder, judge: Retriever) -> Judge:
    """The retriever, with the encoder of words for an encoder of the run."""
    if judge.kind != "encoder":
        return open_judge(judge, context)
    writer = SourceWriter(encoder, "weights", "template", context.run.text, context.run.seed)
    return VectorJudge(judge.column, writer, Means(context.vector_store, tokens_per_batch=64))
