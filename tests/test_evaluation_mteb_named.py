"""Tasks of mteb by name, results in its own format, and what is said where they cannot be had."""

import json
import math
from pathlib import Path

import pytest
from exports import tiny_export
from measured_tasks import KINDS, task_of
from typer.testing import CliRunner
from word_embedder import WordEmbedder

from embedtrain.artifacts import read_json
from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.config.stages import MtebTask
from embedtrain.evaluation.groups import terminal_tables
from embedtrain.evaluation.installed import require_mteb
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.report import read_results
from embedtrain.evaluation.results import Figure, Result
from embedtrain.stages.evaluate import evaluate_folders, named_tasks
from embedtrain.stages.measuring import Wanted, measure_all

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mteb", "ignore::FutureWarning")

mteb = pytest.importorskip("mteb")

import datasets  # noqa: E402
import huggingface_hub  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.cache import ResultCache  # noqa: E402
from mteb.get_tasks import _TASKS_REGISTRY  # noqa: E402
from mteb.results import TaskResult  # noqa: E402

from embedtrain.evaluation.mteb_data import as_local  # noqa: E402
from embedtrain.evaluation.mteb_model import MtebModel, evaluate  # noqa: E402
from embedtrain.evaluation.mteb_named import NamedTask, open_named, sum_sizes  # noqa: E402
from embedtrain.evaluation.mteb_tasks import as_mteb  # noqa: E402

HEIGHTS = [
    ("low wing", "high wing", 1.0),
    ("a tail", "the tail", 4.0),
    ("gas", "heat", 0.5),
    ("jet", "jets", 5.0),
]


def words() -> Remembering:
    """A model."""
    return Remembering("words", WordEmbedder)


# by name


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task that mteb knows by name and loads from a folder, in two splits and two languages."""
    for language in ("en", "de"):
        for split in ("dev", "test"):
            path = tmp_path / "data" / language / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [{"sentence1": f"{a} {split}", "sentence2": b, "score": s} for a, b, s in HEIGHTS]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {
        f"{language}": [{"split": split, "path": f"{language}/{split}.jsonl"} for split in ("dev", "test")]
        for language in ("en", "de")
    }
    card = json.dumps([{"config_name": name, "data_files": parts} for name, parts in files.items()])
    (tmp_path / "data/README.md").write_text(f"---\nconfigs: {card}\n---\n")
    described = TaskMetadata(
        name="WingSTS",
        description="test",
        type="STS",
        category="t2t",
        eval_splits=["dev", "test"],
        eval_langs={"en": ["eng-Latn"], "de": ["deu-Latn"]},
        main_score="cosine_spearman",
        dataset={"path": str(tmp_path / "data"), "revision": "1"},
    )
    kind = type("WingSTS", (AbsTaskSTS,), {"metadata": described, "min_score": 0, "max_score": 5})
    monkeypatch.setitem(_TASKS_REGISTRY, "WingSTS", kind)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return "WingSTS"


def test_a_task_by_name(registered: str, tmp_path: Path) -> None:
    """mteb's own score, its own file, and an interval, since our figures are the same."""
    (whole,) = open_named([MtebTask(task=registered)])
    found = whole.measure(words(), "rev", tmp_path / "mteb")
    saved = TaskResult.from_disk(tmp_path / "mteb/results/embedtrain__words/rev/WingSTS.json")
    assert found.figure.value / 100 == pytest.approx(saved.get_score(), abs=1e-6)
    assert (found.task, found.kind, found.primary) == ("WingSTS", "STS", "spearman")
    assert found.sizes == {"pairs": 16}
    low, high = found.figure.interval
    assert low <= found.figure.value <= high
    assert {s: len(scores) for s, scores in saved.scores.items()} == {"dev": 2, "test": 2}


def test_some_splits_and_languages(registered: str) -> None:
    (one,) = open_named([MtebTask(task=registered, splits=("test",), languages=("deu",))])
    result = one.measure(words(), "", None)
    assert result.sizes == {"pairs": 4}
    assert one.identity[1:] == ["WingSTS", "1", ["test"], ["de"]]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"task": "WingSTS", "splits": ("train",)},
            "mteb task 'WingSTS': no split 'train'; it has dev, test",
        ),
        (
            {"task": "WingSTS", "languages": ("fra",)},
            "mteb task 'WingSTS': nothing in fra; its languages are deu, eng",
        ),
    ],
)
def test_splits_and_languages_that_are_not_there(registered: str, asked: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        open_named([MtebTask(**asked)])
    assert str(error.value) == message


def test_unknown_names_are_told_at_once() -> None:
    with pytest.raises(UserError) as error:
        open_named([MtebTask(task=name) for name in ("NFCorpu", "STS12", "qqqqqqqqq")])
    version = mteb.__version__
    first, second = str(error.value).splitlines()
    start = f"mteb task 'NFCorpu': mteb {version} has no such task; did you mean 'NFCorpus' or '"
    assert first.startswith(start)
    assert second == f"mteb task 'qqqqqqqqq': mteb {version} has no such task; none is named like it"


def test_tasks_that_are_not_of_text() -> None:
    with pytest.raises(
        UserError, match=r"^mteb task 'CIFAR10': holds image; only tasks of text are measured$"
    ):
        open_named([MtebTask(task="CIFAR10")])


def test_data_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as error:
        open_named([MtebTask(task="STS12")])
    said = str(error.value)
    assert said.startswith("mteb task 'STS12': its data 'mteb/sts12-sts' cannot be loaded (")
    assert said.endswith(
        "). mteb reads them from huggingface.co, or from the cache of an earlier run: run where that is "
        "reachable, or copy the cache of a machine that has them (HF_HOME names its folder) and set "
        "HF_HUB_OFFLINE=1, or give data of your own"
    )


def test_mteb_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedtrain.evaluation.installed.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^x: mteb is not installed; pip install 'embedtrain\[eval\]'$"):
        require_mteb("x")
    with pytest.raises(UserError, match=r"^mteb task 'STS12': mteb is not installed"):
        named_tasks([MtebTask(task="STS12")], False)
    with pytest.raises(UserError, match=r"^results in mteb's format \(mteb_results\): mteb is not installed"):
        named_tasks([], True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_mteb_has_loaded_is_the_task_again(kind: str) -> None:
    """So that a task by name gets the interval of ours."""
    task = task_of(kind)
    local = as_mteb(task)
    local.load_data()
    assert as_local(local, "test", "default") == task


def test_a_figure_that_we_measure_otherwise_has_no_interval() -> None:
    named = NamedTask(as_mteb(task_of("similarity")))
    task = task_of("similarity")
    own = measure(words(), task).figure
    assert named.figure(own.value / 100, words(), [(task, own.value / 100)]).draws == own.draws
    assert named.figure(0.5, words(), [(task, own.value / 100 + 0.001)]) == Figure(50.0)
    assert named.figure(0.5, words(), [(None, 0.5)]) == Figure(50.0)
    assert sum_sizes([task, None]) == {"parts": 2}


def test_documents_that_are_too_many_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figure, and no vector stays in memory for its interval."""
    named = NamedTask(as_mteb(task_of("retrieval")))
    named.task.load_data()
    kept = named.measure(words(), "", None)
    monkeypatch.setattr("embedtrain.evaluation.mteb_data.LARGEST", 299)
    found = named.measure(words(), "", None)
    assert found.figure == Figure(kept.figure.value)
    assert kept.figure.interval
    assert found.sizes == {"parts": 1}


def test_a_figure_without_an_interval_in_tables() -> None:
    result = Result(
        "m", "MSMARCO", "Retrieval", "ndcg@10", {"ndcg@10": Figure(41.26)}, {"parts": 1}, None, 1.0
    )
    (table,) = terminal_tables([result])
    assert table.rows == [["m", "41.3"]]
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    with pytest.raises(ValueError, match=r"41\.26 has no interval"):
        _ = result.figure.interval


# in mteb's own format


@pytest.mark.parametrize("kind", ["retrieval", "similarity", "pair classification"])
def test_local_results_have_mtebs_keys_and_our_figures(kind: str, tmp_path: Path) -> None:
    task = task_of(kind, "local")
    folder, data = folder_of(tmp_path), [task]
    wanted = Wanted({"model": str(folder)}, data, bm25=False, mteb_results=True)
    found = measure_all(wanted, Machine(), tmp_path / "out")
    (path,) = (tmp_path / "out/mteb/results").glob("embedtrain__model/*/local.json")
    saved = TaskResult.from_disk(path)
    theirs = evaluate(MtebModel(found.models["model"]), as_mteb(task))
    assert set(saved.scores["test"][0]) == set(theirs.scores["test"][0])
    assert saved.task_name == "local"
    assert saved.get_score() == pytest.approx(found.results[0].figure.value / 100, abs=1e-6)
    for name, value in theirs.scores["test"][0].items():
        if isinstance(value, float) and not math.isnan(value):
            assert saved.scores["test"][0][name] == pytest.approx(value, abs=1e-5), name


def folder_of(place: Path) -> Path:
    """A tiny export."""
    return tiny_export(place)[1]


def test_the_command(registered: str, tmp_path: Path) -> None:
    """Both kinds of tasks in one table; a second run measures nothing and other data are measured again."""
    folder, out, data = folder_of(tmp_path), tmp_path / "out", tmp_path / "sts.jsonl"
    rows = [{"text1": a, "text2": b, "score": s} for a, b, s in HEIGHTS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run() -> None:
        places = [str(folder)], [str(data)], out
        evaluate_folders(*places, None, True, Machine(), mteb=[registered], mteb_results=True)

    run()
    first = read_json(out / "report.json")
    assert [(r.task, r.kind) for r in read_results(first)] == [("sts", "similarity"), ("WingSTS", "STS")]
    assert "WingSTS Spearman" in (out / "report.md").read_text()
    files = sorted((out / "mteb/results").glob("*/*/*.json"))
    assert [path.name for path in files] == ["WingSTS.json", "model_meta.json", "sts.json"]
    loaded = ResultCache(out / "mteb").load_results()
    assert {one.task_name for one in loaded.model_results[0].task_results} == {"WingSTS", "sts"}
    assert set(loaded.to_dataframe()["task_name"]) == {"WingSTS", "sts"}
    written = {path: path.stat().st_mtime_ns for path in files}
    run()
    assert {path: path.stat().st_mtime_ns for path in files} == written
    assert read_json(out / "report.json") == first
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    run()
    assert files[-1].stat().st_mtime_ns > written[files[-1]]
    assert files[0].stat().st_mtime_ns == written[files[0]]


def test_what_the_command_refuses(tmp_path: Path) -> None:
    runner = CliRunner()
    for options, message in (
        ([], "nothing to measure on; give --data with test data, or --mteb with a task of mteb"),
        (["--data", "x", "--mteb-results"], "--mteb-results: no folder to write them to; give --out too"),
    ):
        error = runner.invoke(app, ["evaluate", str(tmp_path), *options]).exception
        assert isinstance(error, UserError)
        assert str(error) == message


def test_one_name_for_two_tasks(registered: str, tmp_path: Path) -> None:
    data = tmp_path / f"{registered}.jsonl"
    data.write_text("".join(json.dumps({"text1": a, "text2": b, "score": s}) + "\n" for a, b, s in HEIGHTS))
    with pytest.raises(UserError, match=r"^two test sets are named 'WingSTS'; rename one of their folders"):
        evaluate_folders(["m"], [str(data)], None, None, True, Machine(), mteb=[registered])
