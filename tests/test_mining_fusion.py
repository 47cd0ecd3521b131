"""Fusion of several lists, held against slow versions in loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.retrievers import Concatenate, Fusion, ReciprocalRank
from embedtrain.mining.fusion import fuse, rank_of_all

LISTS = st.lists(st.lists(st.integers(0, 12), unique=True, max_size=8), min_size=1, max_size=4)
FUSIONS: dict[str, Fusion] = {
    "rrf": ReciprocalRank(kind="rrf"),
    "rrf, k 1": ReciprocalRank(kind="rrf", k=1),
    "concatenate": Concatenate(kind="concatenate"),
    "deduplicate": Concatenate(kind="concatenate", deduplicate=True),
}


def slow_rrf(lists: list[list[int]], k: int) -> list[tuple[int, int]]:
    """(id, rank) of the fused list."""
    sums: dict[int, float] = {}
    for ids in lists:
        for rank, document in enumerate(ids, 1):
            sums[document] = sums.get(document, 0.0) + 1.0 / (k + rank)
    ordered = sorted(sums, key=lambda document: (-sums[document], document))
    return [(document, rank) for rank, document in enumerate(ordered, 1)]


def slow_concatenate(lists: list[list[int]], deduplicate: bool) -> list[tuple[int, int]]:
    fused: list[tuple[int, int]] = []
    for place in range(max(map(len, lists))):
        for ids in lists:
            if place < len(ids) and not (deduplicate and ids[place] in [known for known, _ in fused]):
                fused.append((ids[place], place + 1))
    return fused


def slow(fusion: Fusion, lists: list[list[int]]) -> list[tuple[int, int]]:
    if isinstance(fusion, ReciprocalRank):
        return slow_rrf(lists, fusion.k)
    return slow_concatenate(lists, fusion.deduplicate)


def padded(lists: list[list[int]], width: int = 8) -> np.ndarray:
    return np.array([ids + [-1] * (width - len(ids)) for ids in lists], np.int64)


@pytest.mark.parametrize("name", FUSIONS)
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(LISTS, min_size=1, max_size=4))
def test_every_fusion_equals_loops(name: str, rows: list[list[list[int]]]) -> None:
    num = min(map(len, rows))
    rows = [row[:num] for row in rows]
    found = [padded([row[judge] for row in rows]) for judge in range(num)]
    ids_BL, ranks_BL = fuse(FUSIONS[name], found)
    expected = [slow(FUSIONS[name], row) for row in rows]
    width = max(map(len, expected))
    assert ids_BL.shape == ranks_BL.shape == (len(rows), width)
    for line, ids, ranks in zip(expected, ids_BL, ranks_BL, strict=True):
        assert ids.tolist() == [document for document, _ in line] + [-1] * (width - len(line))
        assert ranks.tolist() == [rank for _, rank in line] + [0] * (width - len(line))


def test_what_two_find_comes_before_what_one_finds() -> None:
    ids_BL, _ = fuse(FUSIONS["rrf"], [padded([[1, 2]]), padded([[2, 3]])])
    assert ids_BL.tolist() == [[2, 1, 3]]


def test_equal_sums_stand_by_id_and_one_list_stays() -> None:
    ids_BL, ranks_BL = fuse(FUSIONS["rrf"], [padded([[5, 1]]), padded([[1, 5]])])
    assert ids_BL.tolist() == [[1, 5]]
    for fusion in FUSIONS.values():
        ids_BL, ranks_BL = fuse(fusion, [padded([[7, 3, 9]])])
        assert (ids_BL.tolist(), ranks_BL.tolist()) == ([[7, 3, 9]], [[1, 2, 3]])


def test_rank_of_the_last_of_several() -> None:
    line = np.array([4, 8, 4, 6, -1])
    assert rank_of_all(line, np.array([8])) == 2
    assert rank_of_all(line, np.array([8, 4])) == 2
    assert rank_of_all(line, np.array([4, 6])) == 4
    assert rank_of_all(line, np.array([4, 5])) == 0
