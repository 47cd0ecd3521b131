"""Speed of exact search beside FAISS Flat and a full row of scores: `python tools/bench/search.py`.

Random vectors, all ways in one process, in turns, medians over rounds. Writes JSON, prints the verdict last;
exits 1 where search is below 0.65 times FAISS Flat's throughput at any size.

For tools/bench/mining.py, too, `measure_search` gives the figures, `judge_search` what is below its bound,
`search_table` what people read.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.search import search  # noqa: E402
from embedtrain.show.tables import print_table  # noqa: E402
from tools.bench.machine import machine  # noqa: E402

SIZE = "queries, documents, dims of the search"
SIZES = [[2_000, 100_000, 384], [2_000, 100_000, 1_024], [200, 500_000, 384]]
SEED = 0
LEAST_SPEED = 0.65  # of FAISS Flat's throughput, in CPU-seconds and in seconds
OURS = "embedtrain"
FAISS = "FAISS Flat"
ROWS = "torch, full rows"
Find = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(queries, documents, k) -> ids_QK."""


def main() -> int:
    """Measure, show and judge; the exit status."""
    args = parse_arguments()
    figures = [measured_size(size, args.top_k, args.rounds) for size in args.size or SIZES]
    faults = [f"{fault} ({size_text(one)})" for one in figures for fault in judge_search(one)]
    write_json(
        args.out,
        {
            "machine": machine(torch.get_num_threads()),
            "sizes": figures,
            "faults": faults,
            "passed": not faults,
        },
    )
    for one in figures:
        print_table(f"exact search, {size_text(one)}", *search_table(one))
    for fault in faults:
        print(fault)
    print(f"search: {'FAILED' if faults else 'passed'}, JSON in {args.out}")
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speed of exact search beside FAISS Flat")
    parser.add_argument("--size", type=int, nargs=3, action="append", help=f"{SIZE}; may stand several times")
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/search/search.json")
    return parser.parse_args()


def size_text(figures: dict[str, Any]) -> str:
    """A size as text."""
    return "{queries:,} queries x {documents:,} documents x {dims:,} dims, top {k}".format(**figures)


def measured_size(size: Sequence[int], k: int, rounds: int) -> dict[str, Any]:
    """Figures over random vectors."""
    num_queries, num_documents, dim = size
    queries, documents = random_vectors(num_queries, dim, SEED), random_vectors(num_documents, dim, SEED + 1)
    return measure_search(queries, documents, k, rounds=rounds)


def random_vectors(num: int, dim: int, seed: int) -> np.ndarray:
    """Unit float32 vectors without any structure."""
    vectors = np.random.default_rng(seed).standard_normal((num, dim), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def search_ours(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """As a mine stage searches: float32 candidates, float64 scores."""
    return search(queries, documents, k)[0]


def search_faiss(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """What IndexFlatIP runs, without the copy that adding to it makes; float32 scores."""
    import faiss

    ids: np.ndarray = faiss.knn(queries, documents, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return ids


def search_full_rows(queries: np.ndarray, documents: np.ndarray, k: int) -> np.ndarray:
    """As sentence-transformers mines: all scores of some queries at once, and the top of each row."""
    turned = torch.from_numpy(documents).T
    chunks = [torch.from_numpy(chunk) @ turned for chunk in np.array_split(queries, -(-len(queries) // 1024))]
    return np.concatenate([torch.topk(scores, k, dim=1)[1].numpy() for scores in chunks])


def measure_search(
    queries: np.ndarray, documents: np.ndarray, k: int = 100, *, rounds: int = 5, threads: int | None = None
) -> dict[str, Any]:
    """CPU-seconds and seconds of each way in every round, in turns; medians, and of ratios to ours."""
    threads = threads or torch.get_num_threads()
    ways, skipped = _ways(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = {name: find(queries, documents, k) for name, find in ways.items()}  # warms up
        timed = [{name: _time(ways[name], queries, documents, k) for name in ways} for _ in range(rounds)]
    finally:
        torch.set_num_threads(before)
    figures: dict[str, Any] = {
        "queries": len(queries),
        "documents": len(documents),
        "dims": queries.shape[1],
        "k": k,
        "threads": threads,
        "skipped": skipped,
        "rounds": timed,
    }
    for name, ids in found.items():
        mine, theirs = ([one[way] for one in timed] for way in (OURS, name))
        figures.setdefault("ways", {})[name] = {
            "cpu_seconds": median(one["cpu"] for one in theirs),
            "seconds": median(one["wall"] for one in theirs),
            "our_speed_cpu": median(b["cpu"] / a["cpu"] for a, b in zip(mine, theirs, strict=True)),
            "our_speed": median(b["wall"] / a["wall"] for a, b in zip(mine, theirs, strict=True)),
            "same_top_fraction": _same_fraction(ids, found[OURS]),
        }
    return figures


def judge_search(figures: dict[str, Any]) -> list[str]:
    """What is slower than its bound; nothing where FAISS is absent."""
    if FAISS in figures["skipped"]:
        return []
    way = figures["ways"][FAISS]
    return [
        f"search: {way[name]:.2f} of {FAISS}'s throughput by {what}, at least {LEAST_SPEED}"
        for name, what in (("our_speed_cpu", "CPU-seconds"), ("our_speed", "seconds"))
        if not way[name] >= LEAST_SPEED
    ]


def search_table(figures: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Columns and a row a way; a way that is absent is named with the reason."""
    rows: list[list[object]] = [
        [
            name,
            round(way["cpu_seconds"], 3),
            round(way["seconds"], 3),
            f"{way['our_speed_cpu']:.2f}",
            f"{way['our_speed']:.2f}",
            f"{100 * way['same_top_fraction']:.2f} %",
        ]
        for name, way in figures["ways"].items()
    ]
    rows += [
        [f"{name}: {reason}", None, None, None, None, None] for name, reason in figures["skipped"].items()
    ]
    columns = ["way", "CPU-seconds", "seconds", "our speed, CPU-seconds", "our speed, seconds", "same top k"]
    return columns, rows


def _ways(threads: int) -> tuple[dict[str, Find], dict[str, str]]:
    """What can be measured here, and what cannot and why."""
    ways: dict[str, Find] = {OURS: search_ours, ROWS: search_full_rows}
    if importlib.util.find_spec("faiss") is None:
        return ways, {FAISS: "skipped, faiss is not installed"}
    import faiss

    faiss.omp_set_num_threads(threads)
    return ways | {FAISS: search_faiss}, {}


def _time(find: Find, queries: np.ndarray, documents: np.ndarray, k: int) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    find(queries, documents, k)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _same_fraction(ids: np.ndarray, ours: np.ndarray) -> float:
    """Share of our top k that another way finds too."""
    pairs = zip(ids, ours, strict=True)
    return float(np.mean([len(np.intersect1d(one, other)) / len(other) for one, other in pairs]))


if __name__ == "__main__":
    sys.exit(main())
