"""Reranking: its rows on disk, its figures by hand, its cuts and forms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured_tasks import reranking
from word_embedder import WordEmbedder

from embedtrain.config.errors import UserError
from embedtrain.evaluation.inherited import forms_of, measure_in
from embedtrain.evaluation.measure import measure
from embedtrain.evaluation.metrics import mean_precision
from embedtrain.evaluation.neighbours import matching
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.tasks import Reranking

ROWS = [
    {"query": "a", "positive": ["x", " y "], "negative": "z"},
    {"query": "a", "positive": ["z"], "negative": ["x", "x"]},
    {"query": "none", "positive": [], "negative": ["x"]},
]


def write(path: Path, rows: list[dict]) -> Path:
    """A jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_read_as_mteb_reads_them(tmp_path: Path) -> None:
    """Each row is a query with documents of its own; one without positives or negatives is left out."""
    (task,) = find_tasks(write(tmp_path / "dupes.jsonl", ROWS))
    assert isinstance(task, Reranking)
    assert (task.name, task.queries, task.sizes) == ("dupes", ("a", "a"), {"queries": 2, "documents": 6})
    assert task.document_ids == (
        "apositive_test_query0_00000",
        "apositive_test_query0_00001",
        "negative_test_query0_00000",
        "apositive_test_query1_00000",
        "negative_test_query1_00000",
        "negative_test_query1_00001",
    )
    assert task.documents == ("x", "y", "z", "z", "x", "x")
    assert [list(task.judged[name].values()) for name in task.query_ids] == [[1, 1, 0], [1, 0, 0]]
    assert task.candidates == {name: tuple(task.judged[name]) for name in task.query_ids}


def test_broken_rows(tmp_path: Path) -> None:
    path = tmp_path / "dupes.jsonl"
    for rows, message in (
        ([{"query": "a", "positive": ["x"]}], f"{path}:1: no value for 'negative'; found query, positive"),
        (ROWS[2:], f"{path}:1: task 'dupes': no row has both a positive and a negative"),
        (
            [{"query": "a", "positive": ["x"], "negative": [3]}],
            f"{path}:1: 'negative' is a list, expected a text or a list of texts",
        ),
    ):
        write(path, rows)
        with pytest.raises(UserError) as error:
            find_tasks(path)
        assert str(error.value) == message


def test_mean_precision_by_hand() -> None:
    judged = {"a": 1, "b": 2, "c": 0, "absent": 1}
    assert mean_precision(["a", "c", "b"], judged, 1000) == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert mean_precision(["a", "c", "b"], judged, 2) == pytest.approx(1 / 3)
    assert mean_precision(["c"], judged, 1000) == mean_precision(["c"], {"c": 0}, 1000) == 0


def test_figures_against_plain_loops() -> None:
    task, words = reranking("local"), WordEmbedder()
    found = measure(words, task)
    text = dict(zip(task.document_ids, task.documents, strict=True))
    precisions, ranks = [], []
    for name, query in zip(task.query_ids, task.queries, strict=True):
        vector = words.encode([query], side="query")[0].astype(float)
        ids = task.candidates[name]
        scores = np.float32(words.encode([text[one] for one in ids], side="document") @ vector)
        order = sorted(ids, key=lambda one: (round(float(scores[ids.index(one)]), 6), one), reverse=True)
        hits = [rank for rank, one in enumerate(order, 1) if task.judged[name][one]]
        precisions.append(np.mean([(n + 1) / rank for n, rank in enumerate(hits)]))
        ranks.append(1 / hits[0] if hits[0] <= 10 else 0)
    assert found.metrics["map@1000"].value == pytest.approx(100 * np.mean(precisions), abs=1e-9)
    assert found.metrics["mrr@10"].value == pytest.approx(100 * np.mean(ranks), abs=1e-9)
    low, high = found.figure.interval
    assert low < found.figure.value < high


def test_the_order_of_documents_does_not_matter() -> None:
    task = reranking("local")
    turned = {name: ids[::-1] for name, ids in task.candidates.items()}
    assert (
        measure(WordEmbedder(), replace(task, candidates=turned)).metrics
        == measure(WordEmbedder(), task).metrics
    )


def test_a_subset_keeps_all_documents_of_its_queries() -> None:
    task = reranking("local")
    cut = task.subset(500, lambda texts: [len(text.split()) for text in texts])
    assert 2 <= len(cut.queries) < len(task.queries)
    assert cut.full_sizes == task.sizes
    assert set(cut.document_ids) == {one for name in cut.query_ids for one in cut.candidates[name]}
    smaller = task.subset(300, lambda texts: [len(text.split()) for text in texts])
    assert set(smaller.query_ids) < set(cut.query_ids)
    measure(WordEmbedder(), cut)


def test_fewer_dims_and_bits() -> None:
    task, words = reranking("local"), WordEmbedder()
    full = measure(words, task).figure.value
    for form in forms_of([12], ["int8", "binary"]):
        assert 0 < measure_in(form, words, task).figure.value < 100
    int8, _ = (measure_in(form, words, task).figure.value for form in forms_of([], ["int8", "binary"]))
    assert int8 == pytest.approx(full, abs=5)


def test_examples_are_judged() -> None:
    task = reranking("local")
    pairs = matching(task)
    assert pairs.is_right(0, 0)
    assert not pairs.is_right(0, 5)
