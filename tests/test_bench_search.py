"""tools/bench/search.py at a small size: figures, the verdict, and an absent peer."""

import importlib.util

import numpy as np
import pytest

from tools.bench.search import (
    FAISS,
    LEAST_SPEED,
    OURS,
    ROWS,
    judge_search,
    measure_search,
    random_vectors,
    search_table,
)


def test_small_figures() -> None:
    queries, documents = random_vectors(50, 16, 0), random_vectors(600, 16, 1)
    np.testing.assert_allclose(np.linalg.norm(documents, axis=1), 1, rtol=1e-5)
    figures = measure_search(queries, documents, 10, rounds=2, threads=1)
    assert (figures["queries"], figures["documents"], figures["dims"], figures["k"]) == (50, 600, 16, 10)
    assert len(figures["rounds"]) == 2
    ours = figures["ways"][OURS]
    assert ours["our_speed_cpu"] == ours["our_speed"] == ours["same_top_fraction"] == 1
    assert ours["seconds"] > 0
    assert all(way["same_top_fraction"] > 0.99 for way in figures["ways"].values())
    columns, rows = search_table(figures)
    assert {len(row) for row in rows} == {len(columns)}
    assert [row[0] for row in rows][:2] == [OURS, ROWS]


@pytest.mark.parametrize(
    ("cpu", "wall", "faults"),
    [
        (LEAST_SPEED, 0.9, []),
        (0.64, 0.9, ["search: 0.64 of FAISS Flat's throughput by CPU-seconds, at least 0.65"]),
        (0.7, float("nan"), ["search: nan of FAISS Flat's throughput by seconds, at least 0.65"]),
    ],
)
def test_the_verdict(cpu: float, wall: float, faults: list[str]) -> None:
    figures = {"skipped": {}, "ways": {FAISS: {"our_speed_cpu": cpu, "our_speed": wall}}}
    assert judge_search(figures) == faults


def test_an_absent_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    figures = measure_search(random_vectors(5, 8, 0), random_vectors(40, 8, 1), 3, rounds=1, threads=1)
    assert FAISS not in figures["ways"]
    assert search_table(figures)[1][-1][0] == "FAISS Flat: skipped, faiss is not installed"
    assert judge_search(figures) == []
