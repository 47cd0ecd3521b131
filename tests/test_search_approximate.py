"""search/approximate.py: recall, determinism, and what happens without FAISS."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import Approximate
from embedtrain.search import Rankings, approximate, approximate_units, dot, search

NUM = 3000


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    """Clustered documents, and queries near some of them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 16))
    documents = centres[rng.integers(0, 40, NUM)] + 0.5 * rng.standard_normal((NUM, 16))
    queries = documents[rng.integers(0, NUM, 300)] + 0.3 * rng.standard_normal((300, 16))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, documents)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32)


def settings(**changes: int) -> Approximate:
    return Approximate(**({"above_documents": 100, "num_lists": 32, "num_probes": 8} | changes))


def whole(rankings: Rankings) -> tuple[np.ndarray, np.ndarray]:
    ids, scores = zip(*rankings, strict=True)
    return np.concatenate(ids), np.concatenate(scores)


def test_recall_is_what_it_says(vectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("faiss")
    queries, documents = vectors
    found = approximate_units(queries, documents, 20, tmp_path, settings(num_probes=2), query_block=64)
    told = f"search: the index finds {100 * found.recall:.2f} % of the nearest 20\n"
    assert told in capsys.readouterr().out
    ids, scores = whole(found)
    exact = search(queries, documents, 20)[0]
    hits = [len(set(one) & set(other)) / 20 for one, other in zip(ids, exact, strict=True)]
    chosen = np.random.default_rng(0).choice(300, 200, replace=False)
    assert found.recall == pytest.approx(np.mean(np.array(hits)[chosen]))
    assert 0.8 < found.recall < 1  # two cells of 32: most, and not all
    for line in range(300):  # scores are exact, best first, none twice
        assert len(set(ids[line])) == 20
        np.testing.assert_array_equal(scores[line], dot(queries[line : line + 1], documents[ids[line]]))
        assert (np.diff(scores[line]) <= 0).all()


@pytest.mark.parametrize(
    ("recall", "num_probes", "ending"),
    [(0.96, 8, "nearest 5"), (0.8444, 8, "nearest 5; more with num_probes above 8"), (0.9, 32, "nearest 5")],
)
def test_a_poor_recall_is_told_with_what_helps(recall: float, num_probes: int, ending: str) -> None:
    told = approximate.recall_text("faq: search", recall, 5, settings(num_probes=num_probes))
    assert told == f"faq: search: the index finds {100 * recall:.2f} % of the {ending}"


def test_all_cells_find_all(vectors, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    queries, documents = vectors
    found = approximate_units(queries, documents, 20, tmp_path, settings(num_probes=32))
    assert found.recall == 1.0
    np.testing.assert_array_equal(whole(found)[0], search(queries, documents, 20)[0])


def test_more_asked_than_the_cells_hold(vectors, tmp_path: Path) -> None:
    """A query whose cells hold fewer than k is searched exactly."""
    pytest.importorskip("faiss")
    queries, documents = vectors
    found = whole(approximate_units(queries, documents, 500, tmp_path, settings(num_probes=1)))
    exact = search(queries, documents, 500)
    np.testing.assert_array_equal(found[0], exact[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_same_on_any_threads_and_processes(vectors, tmp_path: Path, dtype: type) -> None:
    faiss = pytest.importorskip("faiss")
    queries, documents = (array.astype(dtype) for array in vectors)
    threads = faiss.omp_get_max_threads()
    results, indexes = [], []
    try:
        for run, (count, world) in enumerate([(1, 1), (3, 1), (2, 2)]):
            faiss.omp_set_num_threads(count)
            folder = tmp_path / str(run)
            parts = [
                approximate_units(
                    queries, documents, 9, folder, settings(), rank=rank, world=world, query_block=50
                )
                for rank in range(world)
            ]
            assert sum(part.made for part in parts) == 6
            results.append(whole(parts[-1]))
            indexes.append((folder / approximate.INDEX).read_bytes())
            assert faiss.omp_get_max_threads() == count
    finally:
        faiss.omp_set_num_threads(threads)
    assert indexes[0] == indexes[1] == indexes[2]
    for ids, scores in results[1:]:
        np.testing.assert_array_equal(ids, results[0][0])
        np.testing.assert_array_equal(scores, results[0][1])


def test_a_finished_index_is_kept(vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    first = approximate_units(*vectors, 5, tmp_path, settings(), query_block=100)
    monkeypatch.setattr(approximate, "build_index", lambda *args: pytest.fail("built again"))
    monkeypatch.setattr(approximate, "measure_recall", lambda *args: pytest.fail("measured again"))
    again = approximate_units(*vectors, 5, tmp_path, settings(), query_block=100)
    assert (first.made, first.found, again.made, again.found) == (3, 0, 0, 3)
    assert again.recall == first.recall


def test_few_documents_are_searched_exactly(vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    found = approximate_units(*vectors, 5, tmp_path, settings(above_documents=NUM))
    assert found.recall is None
    np.testing.assert_array_equal(whole(found)[0], search(*vectors, 5)[0])


def test_without_faiss(vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    text = "approximate takes the extra 'faiss': pip install 'embedtrain[faiss]', or remove the key"
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        approximate_units(*vectors, 5, tmp_path, settings())
