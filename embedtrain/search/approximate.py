"""Searches a FAISS index (IVF) where documents are many; what it finds gets the exact score, as ever.

Documents lie in cells around k-means centres, in float16, and a query looks into its nearest cells alone. The
centres are learned on one thread, and which cells are nearest is found by exact search, so neither the index
nor a result depends on the number of cores or processes.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.artifacts import put_in_place, read_json, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.retrievers import Approximate
from embedtrain.places import at, wait_for
from embedtrain.search.exact import Ranking, best, check, dot, search
from embedtrain.search.units import QUERY_BLOCK, Grid, Rankings, make_units, search_units
from embedtrain.show.progress import progress

SAMPLED_QUERIES = 200  # that recall is measured on
VECTORS_PER_LIST = 64  # that the centres are learned from
POOR_RECALL = 0.95  # below it the way to a better one is told
MIN_PER_LIST = 39  # documents of a cell on average: with fewer, FAISS says, centres are poor
ITERATIONS = 10  # of k-means
CHUNK = 2**14  # documents added at a time
NO_FAISS = "approximate takes the extra 'faiss': pip install 'embedtrain[faiss]', or remove the key"
INDEX = "index.faiss"
RECALL = "recall.json"


def approximate_units(
    queries: np.ndarray,
    documents: np.ndarray,
    k: int,
    folder: Path,
    approximate: Approximate,
    *,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    query_block: int = QUERY_BLOCK,
    device: str = "cpu",
    label: str = "search",
) -> Rankings:
    """`search_units` by an index; exactly where there are at most `above_documents` documents.

    Rank 0 builds the index and measures its recall (share of the exact top k that it finds) on 200 queries
    drawn with the seed; the others wait for both. UserError where FAISS is not installed.
    """
    if len(documents) <= approximate.above_documents or len(queries) == 0:
        shares: dict[str, Any] = {"rank": rank, "world": world, "query_block": query_block}
        return search_units(queries, documents, k, folder, **shares, device=device, label=label)
    check(queries, documents, k)
    grid = Grid(
        len(queries), len(documents), min(k, len(documents)), query_block or QUERY_BLOCK, len(documents)
    )
    index = _open_index(documents, folder / INDEX, approximate, seed, rank, device, label)
    if rank == 0 and not (folder / RECALL).exists():
        measured = measure_recall(index, queries, documents, grid.k, seed)
        write_json(folder / RECALL, {"recall": measured, "k": grid.k, "cells": index.faiss.nlist})
        print(recall_text(label, measured, grid.k, approximate), flush=True)
    wait_for([folder / RECALL])

    def find(numbers: np.ndarray, part: int) -> Ranking:
        return index.search(queries[numbers], documents, grid.k)

    found = make_units(find, grid, folder, rank, world, label)
    return replace(found, recall=read_json(folder / RECALL)["recall"])


@dataclass(frozen=True, slots=True)
class CellIndex:
    """A FAISS index, its centres, and how many cells a query looks into."""

    faiss: Any
    centres: np.ndarray
    num_probes: int
    device: str

    def search(self, queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
        """The k best found, twice as many rescored in float64; exact for a query whose cells hold too few."""
        width = min(2 * k, len(documents))
        cells, closeness = search(queries, self.centres, self.num_probes, device=self.device)
        asked = np.ascontiguousarray(queries, np.float32)
        found = self.faiss.search_preassigned(asked, width, cells, closeness.astype(np.float32))[1]
        scores = np.full(found.shape, -np.inf)
        for line, ids in enumerate(found):
            there = ids >= 0
            scores[line, there] = dot(queries[line : line + 1], documents[ids[there]])
        ids, scores = best(found, scores, k)
        few = np.isneginf(scores[:, -1])
        if few.any():
            ids[few], scores[few] = search(np.asarray(queries)[few], documents, k, device=self.device)
        return ids, scores


def measure_recall(index: CellIndex, queries: np.ndarray, documents: np.ndarray, k: int, seed: int) -> float:
    """Mean share of the exact top k that the index finds, over queries drawn with the seed."""
    num = min(SAMPLED_QUERIES, len(queries))
    chosen = np.sort(np.random.default_rng(seed).choice(len(queries), num, replace=False))
    asked = np.asarray(queries)[chosen]
    exact = search(asked, documents, k, device=index.device)[0]
    found = index.search(asked, documents, k)[0]
    return float(np.mean([len(np.intersect1d(*pair)) / k for pair in zip(exact, found, strict=True)]))


def recall_text(label: str, recall: float, k: int, approximate: Approximate) -> str:
    """What is told of a measured recall, and what helps where it is poor."""
    text = f"{label}: the index finds {100 * recall:.2f} % of the nearest {k}"
    poor = recall < POOR_RECALL and approximate.num_probes < approximate.num_lists
    return f"{text}; more with num_probes above {approximate.num_probes}" if poor else text


def import_faiss() -> Any:
    """The module; UserError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UserError(NO_FAISS) from None
    return faiss


def _open_index(
    documents: np.ndarray,
    path: Path,
    approximate: Approximate,
    seed: int,
    rank: int,
    device: str,
    label: str,
) -> CellIndex:
    """The index in the file, built by rank 0 where it is not there; documents stay on the disk."""
    faiss = import_faiss()
    if rank == 0 and not path.exists():
        index = build_index(documents, approximate.num_lists, seed, device, label)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with put_in_place(aside, path):
            faiss.write_index(index, str(aside))
    wait_for([path])
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    index.parallel_mode = 3  # over queries: each is the work of one thread
    index.nprobe = min(approximate.num_probes, index.nlist)
    return CellIndex(index, index.quantizer.reconstruct_n(0, index.nlist), index.nprobe, device)


def build_index(documents: np.ndarray, num_lists: int, seed: int, device: str, label: str) -> Any:
    """Learn the centres from a sample, and put every document into its nearest cell."""
    faiss = import_faiss()
    dim = documents.shape[1]
    num_lists = max(1, min(num_lists, len(documents) // MIN_PER_LIST))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, num_lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.by_residual = False
    _learn_centres(faiss, index, documents, seed)
    centres = index.quantizer.reconstruct_n(0, num_lists)
    with progress(f"{label}: index", total=len(documents), unit="document") as bar:
        for start in range(0, len(documents), CHUNK):
            at(f"{label}: index, from document {start}")
            part = np.ascontiguousarray(documents[start : start + CHUNK], np.float32)
            cells = np.ascontiguousarray(search(part, centres, 1, device=device)[0][:, 0])
            pointers = [faiss.swig_ptr(array) for array in (part, cells)]
            index.add_core(len(part), pointers[0], None, pointers[1])
            bar.advance(len(part))
    return index


def _learn_centres(faiss: Any, index: Any, documents: np.ndarray, seed: int) -> None:
    """Spherical k-means on one thread: sums in a fixed order."""
    index.cp.seed, index.cp.niter, index.cp.spherical = seed % 2**31, ITERATIONS, True
    num = min(VECTORS_PER_LIST * index.nlist, len(documents))
    sample = np.sort(np.random.default_rng(seed).choice(len(documents), num, replace=False))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        index.train(np.ascontiguousarray(documents[sample], np.float32))
    finally:
        faiss.omp_set_num_threads(threads)
