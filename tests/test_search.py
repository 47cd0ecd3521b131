"""search.py against a full float64 ranking written in loops."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.search import best, bm25_search, candidates, dot, search, search_chunks
from embedtrain.search import exact as room


def slow_search(queries: np.ndarray, documents: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Full float64 matrix, one pair after the other, stable sort."""
    ids, scores = [], []
    for query in queries:
        line = [(-float(dot(query, document)), number) for number, document in enumerate(documents)]
        line.sort()
        ids.append([number for _, number in line[:k]])
        scores.append([-score for score, _ in line[:k]])
    width = min(k, len(documents))
    return (
        np.array(ids, np.int64).reshape(len(queries), width),
        np.array(scores, np.float64).reshape(len(queries), width),
    )


def random_vectors(seed: int, num: int, dim: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "ties":  # small whole numbers: many exact ties, zero vectors and equal vectors
        return rng.integers(-1, 2, (num, dim)).astype(np.float32)
    vectors = rng.standard_normal((num, dim)).astype(np.float32)
    if kind == "near_ties":  # all within float32 rounding of each other
        return (vectors[:1] + 1e-7 * vectors).astype(np.float32)
    if kind == "lengths":  # lengths over eight orders of magnitude
        return (vectors * 10.0 ** rng.integers(-4, 5, (num, 1))).astype(np.float32)
    return vectors


KINDS = ["normal", "ties", "near_ties", "lengths"]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(0, 9), st.integers(0, 150), st.integers(1, 12)),
    k=st.integers(1, 40),
    chunks=st.tuples(st.integers(1, 10), st.integers(1, 160)),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
)
def test_equals_the_slow_ranking_for_any_chunks(seed, sizes, k, chunks, kinds) -> None:
    num_queries, num_documents, dim = sizes
    queries = random_vectors(seed, num_queries, dim, kinds[0])
    documents = random_vectors(seed + 1, num_documents, dim, kinds[1])
    ids, scores = search(queries, documents, k, query_chunk=chunks[0], document_chunk=chunks[1])
    slow_ids, slow_scores = slow_search(queries, documents, k)
    assert (ids.dtype, scores.dtype) == (np.int64, np.float64)
    np.testing.assert_array_equal(ids, slow_ids)
    np.testing.assert_array_equal(scores, slow_scores)  # to the last bit


@pytest.mark.parametrize("precisions", [(torch.float16,), (torch.float16, torch.float32), ()])
@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_and_the_scan_alone_give_the_same(precisions: tuple, kind: str) -> None:
    queries, documents = random_vectors(1, 7, 24, kind), random_vectors(2, 400, 24, kind)
    longest = float(np.linalg.norm(documents.astype(np.float64), axis=1).max())
    ids, scores = room._search_rows(queries, documents, 5, longest, 64, "cpu", precisions)
    slow_ids, slow_scores = slow_search(queries, documents, 5)
    np.testing.assert_array_equal(ids, slow_ids)
    np.testing.assert_array_equal(scores, slow_scores)


def test_the_guard_is_needed_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """More near ties than candidates: the fast product alone is wrong, and the exact scan mends it."""
    queries, documents = random_vectors(3, 20, 32, "normal"), random_vectors(4, 2000, 32, "near_ties")
    slow_ids, _ = slow_search(queries, documents, 10)
    scans = []
    scan = room._scan
    monkeypatch.setattr(room, "_scan", lambda *args: scans.append(1) or scan(*args))
    np.testing.assert_array_equal(search(queries, documents, 10)[0], slow_ids)
    assert scans
    monkeypatch.setattr(candidates, "error_bound", lambda *args: -1.0)
    assert (search(queries, documents, 10)[0] != slow_ids).any()


def test_ordinary_vectors_need_no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_scan", lambda *args: pytest.fail("scanned"))
    queries, documents = random_vectors(5, 50, 64, "normal"), random_vectors(6, 5000, 64, "normal")
    ids, _ = search(queries, documents, 100, document_chunk=700)
    assert ids.shape == (50, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_bounds_hold(kind: str) -> None:
    queries, documents = random_vectors(7, 30, 96, kind), random_vectors(8, 900, 96, kind)
    queries, documents = (
        x / max(np.linalg.norm(x.astype(np.float64), axis=1).max(), 1.0) for x in (queries, documents)
    )
    exact = queries.astype(np.float64) @ documents.astype(np.float64).T
    for precision in (torch.float32, torch.float16):
        fast = torch.as_tensor(queries).to(precision) @ torch.as_tensor(documents).to(precision).T
        assert np.abs(fast.double().numpy() - exact).max() <= candidates.error_bound(precision, 96)


def test_threads_change_nothing() -> None:
    queries, documents = random_vectors(9, 1000, 48, "normal"), random_vectors(10, 3000, 48, "normal")
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):  # threads share the queries
            torch.set_num_threads(count)
            found.append(search(queries, documents, 20))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for ids, scores in found[1:]:
        np.testing.assert_array_equal(ids, found[0][0])
        np.testing.assert_array_equal(scores, found[0][1])


def test_coarse_products_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 products may be allowed to be TF32 or bfloat16; the search asks for whole ones, for itself."""
    seen = []
    mm, before = torch.mm, torch.get_float32_matmul_precision()

    def watched(*args: torch.Tensor, **out: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return mm(*args, **out)

    monkeypatch.setattr(torch, "mm", watched)
    try:
        torch.set_float32_matmul_precision("medium")
        search(random_vectors(9, 3, 8, "normal"), random_vectors(10, 30, 8, "normal"), 2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {"highest"}


def test_shards_merge_to_the_whole() -> None:
    queries, documents = random_vectors(11, 12, 8, "ties"), random_vectors(12, 300, 8, "ties")
    parts = [(start, search(queries, documents[start : start + 70], 30)) for start in range(0, 300, 70)]
    ids = np.concatenate([found[0] + start for start, found in parts], axis=1)
    scores = np.concatenate([found[1] for _, found in parts], axis=1)
    whole = search(queries, documents, 30)
    merged = best(ids, scores, 30)
    np.testing.assert_array_equal(merged[0], whole[0])
    np.testing.assert_array_equal(merged[1], whole[1])


def test_chunks_are_yielded_one_by_one() -> None:
    queries, documents = random_vectors(13, 10, 8, "normal"), random_vectors(14, 30, 8, "normal")
    chunks = list(search_chunks(queries, documents, 3, query_chunk=4))
    assert [len(ids) for ids, _ in chunks] == [4, 4, 2]


def test_memory_maps_are_searched(tmp_path) -> None:
    queries, documents = random_vectors(15, 5, 8, "normal"), random_vectors(16, 90, 8, "normal")
    np.save(tmp_path / "d.npy", documents)
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        search(queries, mapped, 7, document_chunk=16)[0], search(queries, documents, 7)[0]
    )


@pytest.mark.parametrize(
    ("queries", "documents", "k", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), 0, "search: k is 0, expected at least 1"),
        (
            np.ones((2, 3)),
            np.ones((2, 4)),
            1,
            (
                "search: queries have shape (2, 3) and documents (2, 4), "
                "expected two matrices of the same number of columns"
            ),
        ),
        (np.ones((1, 1)), np.array([[1.0], [np.nan]]), 1, "search: documents[1] is not finite"),
        (np.array([[np.inf]]), np.ones((3, 1)), 1, "search: queries[0] is not finite"),
    ],
)
def test_refusals(queries: np.ndarray, documents: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        search(queries, documents, k)


TEXTS = ["apples and pears", "pears", "a train", "", "apples and pears", "pears pears plums"]


def test_bm25_ranks_by_words_with_ties_by_id() -> None:
    ids, scores = bm25_search(["pears", "apples pears", "zebra", ""], TEXTS, 6)
    assert ids[0].tolist() == [1, 5, 0, 4, 2, 3]
    assert ids[1].tolist()[:2] == [0, 4]
    assert scores[1, 0] == scores[1, 1] > scores[1, 2]
    assert ids[2].tolist() == ids[3].tolist() == [0, 1, 2, 3, 4, 5]
    assert not scores[2:].any()
    assert (np.diff(scores) <= 0).all()


def test_bm25_equals_the_formula_in_loops() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(30)]
    texts = [" ".join(rng.choice(words, rng.integers(1, 20))) for _ in range(60)]
    queries = [" ".join(rng.choice(words, 4, replace=False)) for _ in range(10)]
    split = [text.split() for text in texts]
    mean_length = sum(map(len, split)) / len(split)
    ids, scores = bm25_search(queries, texts, 60)
    for line, query in enumerate(queries):
        for column, document in enumerate(ids[line]):
            expected = 0.0
            for word in query.split():
                containing = sum(word in other for other in split)
                count = split[document].count(word)
                inverse = np.log(1 + (60 - containing + 0.5) / (containing + 0.5))
                norm = 1.5 * (1 - 0.75 + 0.75 * len(split[document]) / mean_length)
                expected += inverse * count / (count + norm)
            assert scores[line, column] == pytest.approx(expected, rel=1e-5)


def test_bm25_of_nothing() -> None:
    assert bm25_search([], TEXTS, 3)[0].shape == (0, 3)
    assert bm25_search(["a"], [], 3)[0].shape == (1, 0)
    ids, scores = bm25_search(["pears"], ["", "the"], 5)
    assert ids.tolist() == [[0, 1]]
    assert not scores.any()
