"""Pairs of model folders: by the command, by an evaluate stage's tables, and beside the package of both."""

from pathlib import Path

import pytest
from asked_tasks import WORDS, retrieval
from routers import LEAF_TEXT, TEACHER_TEXT, export_narrow, export_tiny, make_router
from typer.testing import CliRunner

from embedtrain.artifacts import read_json, write_json
from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.config.stages import Pair
from embedtrain.evaluation.inherited import forms_of
from embedtrain.stages.evaluate import evaluate_folders
from embedtrain.stages.measuring import Wanted, measure_all


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A leaf, its teacher, and the package of both."""
    place = tmp_path_factory.mktemp("models")
    leaf = export_tiny(place / "leaf", "llama", LEAF_TEXT)
    teacher = export_tiny(place / "teacher", "bert", TEACHER_TEXT)
    make_router(place / "router", leaf, teacher)
    return leaf, teacher, place / "router"


def write_data(folder: Path) -> Path:
    """A retrieval task as a BEIR folder, and a task without sides."""
    task = retrieval(num=16)
    folder.mkdir()
    lines = {
        "corpus.jsonl": zip(task.document_ids, task.documents, strict=True),
        "queries.jsonl": zip(task.query_ids, task.queries, strict=True),
    }
    for name, pairs in lines.items():
        records = [f'{{"_id": "{key}", "text": "{text}"}}\n' for key, text in pairs]
        (folder / name).write_text("".join(records))
    judged = [f"{query}\t{document}\t1\n" for query, found in task.judged.items() for document in found]
    (folder / "qrels").mkdir()
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    pairs = [f'{{"text1": "{a}", "text2": "{b}", "score": {n}}}\n' for n, (a, b) in enumerate(PAIRS_OF_TEXTS)]
    (folder.parent / "similar.jsonl").write_text("".join(pairs))
    return folder


PAIRS_OF_TEXTS = [(WORDS[i], WORDS[(3 * i) % 14]) for i in range(10)]


def test_the_command_measures_the_pair_and_the_package_finds_the_same(
    folders: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaf, teacher, router = map(str, folders)
    data = [str(write_data(tmp_path / "asked")), str(tmp_path / "similar.jsonl")]
    evaluate_folders([leaf, router], data, tmp_path / "out", None, False, Machine(), documents=teacher)
    report = read_json(tmp_path / "out/report.json")
    assert [(p["queries"], p["documents"], p["task"]) for p in report["pairs"]] == [
        (leaf, teacher, "asked"),
        (router, teacher, "asked"),
    ]
    pair, _ = report["pairs"]
    results = {(r["model"], r["task"]): r["metrics"] for r in report["results"] if not r["form"]}
    assert set(results) == {(m, t) for m in (leaf, router, teacher) for t in ("asked", "similar")}
    assert pair["result"]["metrics"] == results[router, "asked"]
    assert pair["result"]["metrics"] != results[teacher, "asked"]
    assert pair["figures"]["teacher"] == results[teacher, "asked"]["ndcg@10"]
    assert pair["figures"]["student"] == results[leaf, "asked"]["ndcg@10"]
    shown = capsys.readouterr().out
    assert "Asymmetric search" in shown
    assert "Asymmetric search" in (tmp_path / "out/report.md").read_text()
    assert "Asymmetric search" in (tmp_path / "out/report.html").read_text()


def test_models_of_unlike_dims_end_the_command_before_it_measures(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    narrow = export_narrow(tmp_path)
    data = [str(write_data(tmp_path / "asked"))]
    with pytest.raises(
        UserError, match=r"^the pair '.*narrow.*vectors of 16 and of 32 dims cannot be compared$"
    ):
        evaluate_folders(
            [str(narrow)], data, tmp_path / "out", None, False, Machine(), documents=str(folders[1])
        )
    assert not (tmp_path / "out").exists()


def test_the_option_of_the_command(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    leaf, teacher, _ = map(str, folders)
    data = str(write_data(tmp_path / "asked"))
    options = ["--documents", teacher, "--data", data, "--no-bm25", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["evaluate", leaf, teacher, *options])
    assert result.exit_code == 0, result.output
    assert len(read_json(tmp_path / "out/report.json")["pairs"]) == 1


def test_finished_cells_of_a_pair_are_kept(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    leaf, teacher, _ = map(str, folders)
    tasks = [retrieval(num=16)]
    pair = Pair(queries="leaf", documents="teacher")
    wanted = Wanted({"leaf": leaf, "teacher": teacher}, tasks, False, pairs=[pair], forms=forms_of([8], []))
    first = measure_all(wanted, Machine(), tmp_path)
    assert {r.form for r in first.results} == {"", "8 dims"}
    cells = {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert len(cells) == 5
    again = measure_all(wanted, Machine(), tmp_path)
    assert [p.to_json() for p in again.pairs] == [p.to_json() for p in first.pairs]
    (both,) = (path for path in cells if read_json(path)["model"] == "leaf → teacher")
    write_json(both, read_json(both) | {"seconds": -1.0})
    assert measure_all(wanted, Machine(), tmp_path).pairs[0].pair.seconds == -1.0
    turned = [Pair(queries="teacher", documents="leaf")]
    measure_all(Wanted(wanted.models, tasks, False, pairs=turned), Machine(), tmp_path)
    assert len(list((tmp_path / "cells").iterdir())) == 6
