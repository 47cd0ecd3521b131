"""Mining on several processes, after a stop, and again with a newer model: the same bytes, nothing twice."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from exports import tiny_export
from mined_sources import make_run, mine_with_words, write_sources
from tiny_models import TEXTS, save_tiny

from embedtrain.artifacts import write_json
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import open_rows
from embedtrain.mining import retrieve
from embedtrain.mining.judges import inquiry, stored, vectors, words
from embedtrain.stages import mine, select, train
from embedtrain.stages.context import STAGE_FILE, StageContext

UNIT_ROWS = 8
ALL_RANKS = """
    import os
    import sys
    from pathlib import Path
    import torch
    from embedtrain.mining import retrieve
    from embedtrain.mining.judges import inquiry, stored, vectors, words
    from embedtrain.stages import mine
    from embedtrain.stages.context import read_context

    torch.set_num_threads(1)
    for module in (retrieve, inquiry, stored, vectors, words):
        module.UNIT_ROWS = 8
    for folder in map(Path, sys.argv[1:]):
        context = read_context(folder)
        world, children = context.machine.num_processes, []
        for rank in range(world):
            if (child := os.fork()) == 0:
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
                mine.run_stage(context)
                os._exit(0)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * world
"""


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture
def tiny_run(tmp_path: Path) -> Run:
    """Sentences of the tiny tokenizer's texts, mined by a tiny random base, another model and BM25."""
    save_tiny("llama", tmp_path / "base")
    tiny_export(tmp_path / "other")
    texts = " ".join(TEXTS).split()
    rng = np.random.default_rng(0)
    for name, num in (("one", 60), ("two", 21)):
        lines = [
            Row(" ".join(rng.choice(texts, 5)), (" ".join(rng.choice(texts, rng.integers(4, 20))),))
            for _ in range(num)
        ]
        write_rows(tmp_path / f"{name}.parquet", lines)
    (tmp_path / "given.txt").write_text("\n".join(TEXTS))
    other = {"kind": "model", "name": "other", "model": str(tmp_path / "other" / "model")}
    mined = {"top_k": 12, "retrievers": [other, {"kind": "bm25"}], "corpus": [str(tmp_path / "given.txt")]}
    values = make_run(tmp_path, {"one": {}, "two": {}}, mined, {"rules": [], "last_rank": 12}).model_dump(
        by_alias=True, mode="json"
    )
    values["base"]["model"] = str(tmp_path / "base")
    objective = {"terms": [{"kind": "infonce"}]}
    settings = {"batch_size": 4, "steps": 2, "lr": 1e-2, "lora": {"rank": 2}, "num_negatives": 2}
    values["stages"] += [
        {"name": "tune", "kind": "train", "rows": "chosen", "objective": objective} | settings,
        {"name": "again", "kind": "mine", "from": "tune"} | mined,
    ]
    return Run.model_validate(values)


def write_stage(run: Run, folder: Path, num_processes: int) -> None:
    """What the pipeline writes for the processes of a stage."""
    machine = Machine(num_processes=num_processes, encode_tokens=64, threads=1)
    values = {
        "run": run.model_dump(by_alias=True, mode="json"),
        "stage": "mined",
        "machine": machine.model_dump(mode="json"),
        "inputs": {},
    }
    write_json(folder / STAGE_FILE, values)


@pytest.mark.timeout(600)
def test_on_one_two_and_four_processes(tmp_path: Path, tiny_run: Run) -> None:
    folders = {num: tmp_path / str(num) / "mined.partial" for num in (1, 2, 4)}
    for num, folder in folders.items():
        write_stage(tiny_run, folder, num)
    given = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(ALL_RANKS), *map(str, folders.values())]
    subprocess.run(command, env=given, check=True)
    made = {num: tables(folder) for num, folder in folders.items()}
    for num, folder in folders.items():
        shards = list(folder.parent.glob("vectors/*/*.npy"))
        assert len(shards) > 20
        made[num] |= {path.name: path.read_bytes() for path in shards}
    assert made[1] == made[2] == made[4]


def test_what_was_finished_before_a_stop_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the fourth unit of eight; the next try makes the other five and no unit twice."""
    for module in (retrieve, inquiry, stored, vectors, words):
        monkeypatch.setattr(module, "UNIT_ROWS", UNIT_ROWS)
    write_sources(tmp_path)
    run = make_run(tmp_path, {"one": {}, "two": {}}, {"top_k": 7, "retrievers": [{"kind": "bm25"}]}, {})
    whole, _ = mine_with_words(run, tmp_path)
    folder = tmp_path / "r" / "mined"
    before = tables(folder)
    assert [whole[name]["units_made"] for name in ("one", "two")] == [5, 4]
    for path in folder.glob("*.parquet"):
        path.unlink()
    true_unit, made = retrieve.make_unit, []

    def stop_at_the_fourth(*given: object) -> object:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(given[-1])
        return true_unit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(retrieve, "make_unit", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        mine_with_words(run, tmp_path)
    assert tables(folder) == {}
    monkeypatch.setattr(retrieve, "make_unit", true_unit)
    facts, encoder = mine_with_words(run, tmp_path)
    assert tables(folder) == before
    assert encoder.encoded == []
    assert (facts["one"]["units_found"], facts["one"]["units_made"]) == (3, 2)
    assert (facts["two"]["units_found"], facts["two"]["units_made"]) == (0, 4)
    told = facts["one"]["retrievers"]
    assert [told[name]["searches_found"] for name in ("base", "bm25")] == [5, 5]
    assert [told[name]["searches_made"] for name in ("base", "bm25")] == [0, 0]
    assert told["base"]["texts_encoded"] == 0


def test_what_is_merged_is_not_made_again(tmp_path: Path) -> None:
    """Killed before its done.json was written, a stage finds every unit."""
    write_sources(tmp_path)
    run = make_run(tmp_path, {"one": {}, "two": {}}, {"top_k": 7, "retrievers": [{"kind": "bm25"}]}, {})
    first, _ = mine_with_words(run, tmp_path, keep_units=True)
    folder = tmp_path / "r" / "mined"
    before, units = tables(folder), written(folder)
    assert len(units) > 4
    second, encoder = mine_with_words(run, tmp_path, keep_units=True)
    assert encoder.encoded == []
    assert (tables(folder), written(folder)) == (before, units)
    for name in ("one", "two"):
        made, found = first[name], second[name]
        assert (found["units_made"], found["units_found"]) == (0, made["units_made"])
        for once, again in zip(made["retrievers"].values(), found["retrievers"].values(), strict=True):
            assert (again["searches_made"], again["searches_found"]) == (0, once["searches_made"])


def written(folder: Path) -> dict[Path, int]:
    """The files of units, and when each was written."""
    paths = [path for path in (folder / "work").rglob("*") if path.suffix in (".npz", ".parquet")]
    return {path: path.stat().st_mtime_ns for path in paths}


def test_mined_again_with_a_newer_model(tmp_path: Path, tiny_run: Run) -> None:
    """mine, select, train, mine: the trained model's vectors are new, the other model's are all there."""
    folders = {name: tmp_path / "r" / name for name in ("mined", "chosen", "tune", "again")}

    def work(name: str, module: object, **inputs: Path) -> dict:
        folders[name].mkdir(parents=True)
        context = StageContext(
            tiny_run, find_stage(tiny_run, name), Machine(threads=1), folders[name], inputs
        )
        return module.run_stage(context)  # type: ignore[attr-defined]

    first = work("mined", mine)["sources"]
    work("chosen", select, mined=folders["mined"])
    assert all(row.negatives for row in open_rows(folders["chosen"] / "rows" / "one"))
    work("tune", train, chosen=folders["chosen"])
    again = work("again", mine, tune=folders["tune"])["sources"]
    for name in ("one", "two"):
        one, two = first[name]["retrievers"], again[name]["retrievers"]
        num_texts = one["base"]["texts_encoded"] + one["base"]["texts_stored"]
        assert two["tune"]["texts_encoded"] > 0  # the premise: another model
        assert two["tune"]["texts_encoded"] + two["tune"]["texts_stored"] == num_texts
        assert (two["other"]["texts_encoded"], two["other"]["texts_stored"]) == (0, num_texts)
    assert tables(folders["again"])["corpus.parquet"] == tables(folders["mined"])["corpus.parquet"]
    assert tables(folders["again"])["candidates.parquet"] != tables(folders["mined"])["candidates.parquet"]
