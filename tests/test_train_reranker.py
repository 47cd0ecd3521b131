"""tools/train_reranker.py: the mining it asks for, the folder it trains, and what it claims of it."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
from mined_sources import write_sources
from tiny_models import TEXTS, save_tiny

from embedtrain.config.check import check_run
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row
from embedtrain.evaluation.tasks import Retrieval
from embedtrain.model.cross_encoder import open_cross_encoder
from embedtrain.model.scorer import Pair
from embedtrain.templates import validate_template
from tools import train_reranker
from tools.reranked import figures, measure, verdict_of

ROWS = [Row(TEXTS[n], (TEXTS[n + 1],), negatives=(TEXTS[n - 1], TEXTS[n - 2], TEXTS[n])) for n in range(5)]
TASK = Retrieval(
    "shelf",
    tuple(f"q{n}" for n in range(6)),
    tuple(f"what says {n}" for n in range(6)),
    tuple(f"d{n}" for n in range(9)),
    tuple(f"text {n}" for n in range(9)),
    {f"q{n}": {f"d{n}": 1} for n in range(6)},
)


class Arbitrary:
    """An embedder whose vectors say nothing of the texts."""

    name, dim = "arbitrary", 4

    def encode(self, texts: list[str], *, side: str, normalize: bool = True) -> np.ndarray:
        rng = np.random.default_rng(3)
        return rng.normal(size=(len(texts), self.dim)).astype(np.float32)

    def for_task(self, task: str) -> "Arbitrary":
        return self


class Oracle:
    """Knows which text has the query's number; `sign` -1 knows and says the opposite."""

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def score(self, pairs: list[Pair], tokens_per_batch: int) -> np.ndarray:
        right = [query.split()[-1] == document.split()[-1] for query, document in pairs]
        return self.sign * np.array(right, np.float32)


def arguments(monkeypatch: pytest.MonkeyPatch, *given: str) -> argparse.Namespace:
    monkeypatch.setattr(sys, "argv", ["train_reranker.py", *given])
    return train_reranker.parse_arguments()


def test_its_mining_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sources(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "one.parquet").rename(tmp_path / "one" / "train.parquet")
    model = str(save_tiny("bert", tmp_path / "model"))
    source = str(tmp_path / "one" / "train.parquet")
    args = arguments(
        monkeypatch, "--sources", source, "--retriever", model, "--backbone", model, "--negatives", "4"
    )
    run = train_reranker.mining_run(args)
    assert list(run.sources) == ["one"]
    assert check_run(run, "run", count_rows=count_rows, validate_template=validate_template) == []


def test_what_it_trains_opens_as_a_reranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = save_tiny("bert", tmp_path / "backbone")
    given = {"backbone": backbone, "model": tmp_path / "model", "steps": 4, "batch-pairs": 6, "negatives": 2}
    args = arguments(
        monkeypatch, *(text for key, value in given.items() for text in (f"--{key}", str(value)))
    )
    facts = train_reranker.train(args, ROWS)
    assert facts["pairs"] == 15
    assert len(facts["loss"]) == 4
    assert all(np.isfinite(facts["loss"]))
    trained = open_cross_encoder(str(args.model))
    assert trained.model.max_seq_length == 96
    assert np.ptp(trained.score([(row.query, text) for row in ROWS for text in TEXTS], 500)) > 0


@pytest.mark.parametrize(
    ("sign", "says"),
    [(1, "The reranker beats arbitrary: +"), (-1, "The reranker is worse than arbitrary: -")],
)
def test_the_difference_to_the_retriever_comes_first(sign: int, says: str) -> None:
    told = figures(measure(Arbitrary(), Oracle(sign), [TASK], 9, 100))
    assert next(iter(told)) == "reranker_less_retriever"
    best = told["ndcg@10"]["reranker"]["shelf"]
    assert best == 100 if sign == 1 else best < told["ndcg@10"]["retriever"]["shelf"]
    gain = told["reranker_less_retriever"]
    assert gain["mean"] == pytest.approx(best - told["ndcg@10"]["retriever"]["shelf"])
    assert verdict_of("arbitrary", told).startswith(says)
    nothing = told | {"reranker_less_retriever": {"mean": 0.1, "low": -1.0, "high": 1.2}}
    assert "no claim is made" in verdict_of("arbitrary", nothing)


def test_a_reranker_sees_only_the_first_candidates() -> None:
    told = figures(measure(Arbitrary(), Oracle(1), [TASK], 2, 100))
    everything = figures(measure(Arbitrary(), Oracle(1), [TASK], 9, 100))
    assert told["ndcg@10"]["reranker"]["shelf"] < everything["ndcg@10"]["reranker"]["shelf"] == 100
