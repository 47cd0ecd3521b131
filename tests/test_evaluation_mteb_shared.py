"""Evaluation on all processes: each encodes a share of the texts; figures are those of one, bit for bit."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from exports import tiny_export
from measured_tasks import KINDS, task_of, unlike_texts
from processes import run_on
from word_embedder import WordEmbedder

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.dist import current
from embedtrain.evaluation.inherited import forms_of
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.results import Result
from embedtrain.evaluation.sharing import BLOCK, encode_blocks
from embedtrain.pipeline.running import PARALLEL
from embedtrain.stages.measuring import Wanted, measure_all

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mteb", "ignore::FutureWarning")

TEXTS = unlike_texts(100, 7)
SMALL = ("retrieval", "reranking", "similarity", "pair classification", "bitext")


class Failing(WordEmbedder):
    """Fails on one process, at some text."""

    def encode(self, texts: Sequence[str], *, side: str, normalize: bool = True) -> np.ndarray:
        """As its parent, but for process 1."""
        if current().rank == 1 and TEXTS[0] in texts:
            raise MemoryError("no room")
        return super().encode(texts, side=side, normalize=normalize)


@dataclass(frozen=True)
class Told:
    """What a process says of a measurement."""

    values: list[dict[str, Any]]
    encoded: int


def in_blocks(shared: bool) -> tuple[np.ndarray, int]:
    """Vectors, and how many texts this process encoded."""
    words = WordEmbedder()
    vectors = encode_blocks(words, TEXTS, "query", False, shared)
    return vectors, sum(len(texts) for _, texts in words.calls)


def test_each_process_encodes_a_share() -> None:
    alone, num = in_blocks(True)
    assert num == len(TEXTS) == 100
    (first, num_first), (second, num_second) = run_on(2, in_blocks, True)
    assert (num_first, num_second) == (2 * BLOCK, 100 - 2 * BLOCK)
    assert alone.tobytes() == first.tobytes() == second.tobytes()
    plain = WordEmbedder().encode(TEXTS, side="query", normalize=False)
    assert alone.tobytes() == plain.tobytes(), "in the order asked for"
    assert [num for _, num in run_on(2, in_blocks, False)] == [100, 100]


def one_text() -> np.ndarray:
    """Fewer blocks than processes."""
    return encode_blocks(WordEmbedder(), TEXTS[:1], "", False, True)


def test_a_process_may_have_nothing_to_encode() -> None:
    first, second = run_on(2, one_text)
    assert first.shape == (1, 24)
    assert first.tobytes() == second.tobytes()


def fail_and_go_on() -> tuple[str, float]:
    """What a process hears where one fails, and a figure measured afterwards."""
    own = Remembering("failing", Failing, shared=True)
    place = sorted(range(len(TEXTS)), key=lambda row: -len(TEXTS[row])).index(0)
    assert place // BLOCK % 2 == 1, "the text must be of the second process's share"
    try:
        own.encode(TEXTS, side="")
    except (UserError, MemoryError) as error:
        said = f"{type(error).__name__}: {error}"
    task = task_of("similarity")
    return said, measure(Remembering("words", WordEmbedder, shared=True), task).figure.value


def test_a_failure_of_one_process_ends_all() -> None:
    """And leaves none waiting: the next texts are shared again."""
    (first, value), (second, other) = run_on(2, fail_and_go_on)
    assert first == "UserError: process 1 of 2 failed while it encoded texts: MemoryError: no room"
    assert second == "MemoryError: no room"
    assert value == other == measure(WordEmbedder(), task_of("similarity")).figure.value


def measured(folder: str, out: str | None, kinds: Sequence[str], by_mteb: bool) -> list[dict[str, Any]]:
    """Every figure of a folder on tasks, in fewer dims too, and on one that mteb runs."""
    named = []
    if by_mteb:
        from embedtrain.evaluation.mteb_named import NamedTask
        from embedtrain.evaluation.mteb_tasks import as_mteb

        named = [NamedTask(as_mteb(task_of("retrieval", "by-mteb")))]
    tasks = [task_of(kind, kind) for kind in kinds]
    wanted = Wanted({"model": folder}, tasks, forms=forms_of([8], []), named=named, mteb_results=by_mteb)
    found = measure_all(wanted, Machine(), Path(out) if out else None)
    return [without_time(result) for result in found.results]


def without_time(result: Result) -> dict[str, Any]:
    """Plain values of a result."""
    return result.to_json() | {"seconds": 0}


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    pytest.importorskip("mteb")
    _, folder = tiny_export(tmp_path)
    alone = measured(str(folder), str(tmp_path / "one"), SMALL, True)
    assert len(alone) == 1 + 2 * len(SMALL) + 1, "BM25, each task whole and cut, and the one that mteb runs"
    first, second = run_on(2, measured, str(folder), str(tmp_path / "two"), SMALL, True)
    assert alone == first == second
    files = {path.name for path in (tmp_path / "two/mteb/results").glob("*/*/*.json")}
    assert files == {*(f"{kind}.json" for kind in SMALL), "by-mteb.json", "model_meta.json"}
    assert run_on(2, measured, str(folder), str(tmp_path / "two"), SMALL, True) == [alone, alone]


@pytest.mark.slow
def test_two_processes_measure_what_one_does_on_every_kind(tmp_path: Path) -> None:
    _, folder = tiny_export(tmp_path)
    alone = measured(str(folder), None, list(KINDS), False)
    assert run_on(2, measured, str(folder), None, list(KINDS), False) == [alone, alone]


@pytest.mark.slow
def test_a_stage_on_two_processes(tmp_path: Path) -> None:
    """Started by `embedtrain run` with a machine file of two processes."""
    assert "evaluate" in PARALLEL
    _, folder = tiny_export(tmp_path)
    data = tmp_path / "sts.jsonl"
    rows = [
        json.dumps({"text1": a, "text2": b, "score": n}) for n, (a, b) in enumerate(itertools.pairwise(TEXTS))
    ]
    data.write_text("\n".join(rows))
    reports = []
    for processes in (1, 2):
        run = {
            "name": f"on{processes}",
            "folder": str(tmp_path),
            "base": {"model": str(tmp_path / "base")},
            "sources": {"s": {"rows": str(tmp_path / "rows.jsonl")}},
            "stages": [{"name": "report", "kind": "evaluate", "models": [str(folder)], "data": [str(data)]}],
        }
        (tmp_path / "rows.jsonl").write_text('{"query": "a", "positives": ["b"]}\n')
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
        (tmp_path / "machine.yaml").write_text(yaml.safe_dump({"num_processes": processes}))
        command = ["run", str(tmp_path / "run.yaml"), "--machine", str(tmp_path / "machine.yaml")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "embedtrain", *command], check=True, env=environment)
        report = read_json(tmp_path / f"on{processes}/report.json")
        reports.append([result | {"seconds": 0} for result in report["results"]])
        assert (tmp_path / f"on{processes}/report.html").is_file()
    assert reports[0] == reports[1]
