"""`embedtrain run` of mine, score and select: killed at any moment, or on other processes, the same bytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_server import Server, serving
from killed_runs import finish, kill_when, outputs, write_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
UNIT_PAIRS = 2048 + 4  # a unit of a reranker ends with a row of at most 3 candidates and a positive


@dataclass(frozen=True)
class Whole:
    """A run on one process that nothing stopped."""

    folder: Path
    server: Server
    facts: dict[str, dict[str, Any]]
    files: dict[str, bytes]
    asked: dict[str, int]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("kills")
    with serving() as server:
        config = write_run(folder, "whole", server)
        facts = finish(config)
        yield Whole(folder, server, facts, outputs(config), texts_asked(server))


def test_killed_while_it_encodes_searches_and_scores(whole: Whole) -> None:
    """Three kills in one run on two processes. What was finished stays, is counted, and is not made again."""
    whole.server.asked.clear()
    config = write_run(whole.folder, "killed", whole.server)
    left: dict[str, dict[Path, int]] = {}
    for moment, (pattern, number) in MOMENTS.items():
        root = kill_when(config, 2, lambda root: len(written(root, pattern)) >= number)  # noqa: B023
        assert not written(root, f"{STAGES[moment]}-????????/done.json")  # the premise: it was not done yet
        left[moment] = written(root, pattern)
    facts = finish(config, 2)
    assert outputs(config) == whole.files
    for moment in ("encode", "search", "score"):
        there = {path: path.stat().st_mtime_ns for path in left[moment] if path.exists()}
        assert there.items() <= left[moment].items()
    assert left["encode"].keys() <= written(root, MOMENTS["encode"][0]).keys()
    assert searches(facts, "found") >= len(left["search"]) >= MOMENTS["search"][1]
    assert teachers(facts, "found") >= len(left["score"]) >= MOMENTS["score"][1]
    for count in (searches, teachers):
        assert count(facts, "made") + count(facts, "found") == count(whole.facts, "made")
        assert count(whole.facts, "found") == 0
        assert count(facts, "made") > 0
    shard = max(len(np.load(path)) for path in written(root, MOMENTS["encode"][0]))
    asked = texts_asked(whole.server)
    assert 0 <= asked["/embed"] - whole.asked["/embed"] <= 3 * 2 * shard  # three kills of two processes
    assert 0 <= asked["/rerank"] - whole.asked["/rerank"] <= 2 * UNIT_PAIRS


def test_four_processes_write_the_same_bytes(whole: Whole) -> None:
    config = write_run(whole.folder, "on_four", whole.server)
    whole.server.asked.clear()
    finish(config, 4)
    assert outputs(config) == whole.files
    assert texts_asked(whole.server) == whole.asked  # each text once, by whichever process


STAGES = {"encode": "mined", "search": "mined", "score": "scored"}
MOMENTS = {
    "encode": ("vectors/**/*.keys.npy", 5),
    "search": ("mined-*.partial/work/**/[0-9]*-[0-9]*.npz", 2),
    "score": ("scored-*.partial/work/units/**/[0-9]*.npy", 2),
}
"""What shows that a run is there: files that finished units leave, and how many of them are waited for."""


def written(root: Path, pattern: str) -> dict[Path, int]:
    """Files below the run's folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in root.glob(pattern)}


def searches(facts: dict[str, dict[str, Any]], how: str) -> int:
    """Units of the search, over all sources and retrievers."""
    sources = facts["mined"]["facts"]["sources"].values()
    return sum(one[f"searches_{how}"] for source in sources for one in source["retrievers"].values())


def teachers(facts: dict[str, dict[str, Any]], how: str) -> int:
    """Units of the teachers."""
    return sum(one[f"units_{how}"] for one in facts["scored"]["facts"]["teachers"].values())


def texts_asked(server: Server) -> dict[str, int]:
    """How many texts were sent to each address; not those that only ask for the dims."""
    counts = {"/embed": 0, "/rerank": 0}
    for one in server.asked:
        if one.path in counts:
            texts = one.body.get("inputs", one.body.get("texts"))
            counts[one.path] += 0 if texts == ["dimension"] else len(texts)
    return counts
