"""The comparison of soups: its runs, the rows it holds out, and what its table tells."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from word_embedder import WordEmbedder  # noqa: E402

from embedtrain.artifacts import read_json, write_json  # noqa: E402
from embedtrain.config.check import check_run  # noqa: E402
from embedtrain.config.schema import Run  # noqa: E402
from embedtrain.config.soups import Greedy, Soup  # noqa: E402
from embedtrain.config.stages import Train  # noqa: E402
from embedtrain.data.counts import count_rows  # noqa: E402
from embedtrain.data.rows import Row, read_rows  # noqa: E402
from embedtrain.evaluation.tasks import Retrieval  # noqa: E402
from embedtrain.pipeline import plan_run  # noqa: E402
from embedtrain.templates import validate_template  # noqa: E402
from tools.cells import cell_files, make_cells  # noqa: E402
from tools.compare_soups import greedy_choice, middle, report  # noqa: E402
from tools.negative_arms import REFERENCE  # noqa: E402
from tools.soup_arms import (  # noqa: E402
    ARMS,
    MIDDLE,
    MINED,
    RUNS,
    SIZES,
    SOUPS,
    TASKS,
    comparisons,
    hold_out,
    make_run,
    split,
)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# --- runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_runs_are_sound(size: str, tmp_path: Path) -> None:
    hold_out(tmp_path / size, SIZES[size].held_out_rows)
    run = make_run(size, str(tmp_path), ARMS, 1)
    assert check_run(run, "run", count_rows=count_rows, validate_template=validate_template) == []


def test_runs_differ_in_their_data_alone() -> None:
    run = make_run("quickstart", "runs", ARMS, 5)
    trained = [s for s in run.stages if isinstance(s, Train) and s.from_ == "pretrain"]
    assert [s.sources for s in trained] == [arm.sources for arm in RUNS]
    assert len({repr(s.model_dump(exclude={"name", "sources"})) for s in trained}) == 1
    assert {s.seed for s in trained} == {5}
    soups = [s for s in run.stages if isinstance(s, Soup)]
    assert [s.from_ for s in soups] == [tuple(s.name for s in trained)] * len(SOUPS)


def test_a_soup_brings_its_runs_and_a_run_stands_alone() -> None:
    def made(run: Run) -> list[str]:
        return [s.name for s in run.stages if s.kind in ("train", "soup")]

    assert made(make_run("smoke", "runs", ARMS[:1], 1)) == ["pretrain", "train_all_1"]
    runs = ["pretrain", "train_all_1", "train_passages_1", "train_phrases_1"]
    assert made(make_run("smoke", "runs", SOUPS[:1], 1)) == [*runs, "soup_uniform_1"]


def test_stage_1_is_the_same_for_all_seeds(tmp_path: Path) -> None:
    hold_out(tmp_path / "smoke", 20)
    files = [cell_files(make_run("smoke", str(tmp_path), ARMS, seed), [task_of(20)]) for seed in (1, 2)]
    assert files[0][REFERENCE] == files[1][REFERENCE]
    assert not {file for name, file in files[0].items() if name != REFERENCE} & set(files[1].values())


def test_every_model_is_compared() -> None:
    pairs = comparisons()
    assert {name for pair in pairs for name in pair} == {REFERENCE, MIDDLE, *(arm.name for arm in ARMS)}
    assert len(set(pairs)) == len(pairs)


# --- held-out rows ------------------------------------------------------------------------------------------


def test_held_out_rows_share_no_text_with_the_others() -> None:
    rows = [Row(f"query {n}", (f"document {n}",)) for n in range(40)]
    shared = [Row("query 3", ("another",)), Row("asked", ("document 7",)), Row("echo", ("echo",))]
    kept, held_out = split([*rows, *shared], 38)
    assert sorted([*kept, *held_out], key=repr) == sorted([*rows, *shared], key=repr)
    assert {"query 3", "query 7", "asked"} < {row.query for row in kept}
    texts = [{text for row in part for text in (row.query, *row.positives)} for part in (kept, held_out)]
    assert not texts[0] & texts[1]
    assert len(held_out) == 38
    assert split([*rows, *shared], 38) == (kept, held_out)


def test_greedy_soups_are_chosen_on_rows_that_nothing_else_reads(tmp_path: Path) -> None:
    hold_out(tmp_path / "smoke", 20)
    run = make_run("smoke", str(tmp_path), ARMS, 1)
    greedy = next(s.method for s in run.stages if isinstance(s, Soup) and isinstance(s.method, Greedy))
    assert greedy.data == (str(tmp_path / "smoke" / "validation"),)
    assert not any(Path(path).is_relative_to(task) for task in TASKS for path in greedy.data)
    for name in MINED:
        trained = read_rows(run.sources[name].rows)
        held_out = read_rows(Path(greedy.data[0]) / f"{name}.parquet")
        assert len(held_out) == 20
        assert len(trained) + 20 == count_rows(f"rows/{name}/train.parquet")
        assert not set(held_out) & set(trained)


# --- the table ----------------------------------------------------------------------------------------------


def task_of(num: int) -> Retrieval:
    words = ["apple", "pear", "plum", "train", "river", "stone", "cloud", "glass"]
    generator = np.random.default_rng(num)
    documents = tuple(" ".join(generator.choice(words, 4)) + f" {n}" for n in range(num))
    queries = tuple(" ".join(text.split()[:2]) for text in documents[: num // 2])
    judged = {f"q{n}": {f"d{n}": 1} for n in range(len(queries))}
    return Retrieval("words", tuple(judged), queries, tuple(f"d{n}" for n in range(num)), documents, judged)


def choice(name: str, score: float, tried: float, kept: bool, weight: float) -> dict[str, object]:
    return {"name": name, "score": score, "tried_score": tried, "kept": kept, "weight": weight}


CHOICE = {
    "ingredients": [
        choice("train_all_1", 78.0, 80.5, True, 0.5),
        choice("train_passages_1", 71.5, 69.0, False, 0.0),
        choice("train_phrases_1", 80.0, 80.0, True, 0.5),
    ],
    "order": ["train_phrases_1", "train_all_1", "train_passages_1"],
    "score": 80.5,
}


def test_the_middle_is_the_mean_of_the_runs() -> None:
    values = [{"t": np.array([[0.0, 1.0]])}, {"t": np.array([[1.0, 1.0]])}, {"t": np.array([[0.5, 0.0]])}]
    assert middle(values)["t"] == pytest.approx(np.array([[0.5, 2 / 3]]))


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_the_table_holds_every_model(
    seeds: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, task = np.random.default_rng(0), task_of(60)
    names = [REFERENCE, *(arm.name for arm in ARMS)]
    cells = {s: {n: {"words": generator.random(len(task.queries)).tolist()} for n in names} for s in seeds}
    report(Namespace(size="smoke", seeds=seeds, out=tmp_path), [task], cells, dict.fromkeys(seeds, CHOICE))
    page, figures = (tmp_path / "compare_smoke.md").read_text(), read_json(tmp_path / "compare_smoke.json")
    assert all(f"| {name} |" in page for name in (*names, MIDDLE))
    assert figures["ndcg@10"]["greedy"]["words"] == pytest.approx(
        [100 * np.mean(cells[seed]["greedy"]["words"]) for seed in seeds]
    )
    over_runs = [np.mean([np.mean(cells[s][arm.name]["words"]) for arm in RUNS]) for s in seeds]
    assert figures["ndcg@10"][MIDDLE]["words"] == pytest.approx([100 * x for x in over_runs])
    assert "| 1 | train_passages_1 | 71.50 | 69.00 | no | 0.00 |" in page
    assert page.index("train_phrases_1 | 80.00 | 80.00 | yes") < page.index("train_passages_1 | 71.50")
    assert figures["greedy"] == {str(seed): CHOICE for seed in seeds}
    assert capsys.readouterr().out.rstrip().endswith(figures["verdict"][-1])
    assert ("One seed" in figures["verdict"][-1]) == (len(seeds) == 1)


def test_a_greedy_soup_tells_how_it_was_chosen(tmp_path: Path) -> None:
    hold_out(tmp_path / "smoke", 20)
    run = make_run("smoke", str(tmp_path), ARMS, 1)
    (folder,) = (plan.folder for plan in plan_run(run) if plan.stage.name == "soup_greedy_1")
    write_json(folder / "soup.json", CHOICE | {"seed": 7, "versions": {}})
    assert greedy_choice(run, 1) == CHOICE


def test_a_finished_cell_is_not_made_again(tmp_path: Path) -> None:
    hold_out(tmp_path / "smoke", 20)
    tasks, asked = [task_of(30)], list[list[str]]()

    def train(run: Run) -> None:
        files = cell_files(run, tasks)
        asked.append(list(files))
        for _, model in files.values():
            model.mkdir(parents=True)

    def make(arms: tuple[object, ...], reference: bool = True) -> Run:
        return make_run("smoke", str(tmp_path), arms, 1, reference)

    for arms in (ARMS[:2], ARMS, ARMS):
        assert list(make_cells(make, arms, 1, tasks, train, lambda folder: WordEmbedder(24)))
    assert asked == [
        [REFERENCE, "model_all_1", "model_passages_1"],
        ["model_phrases_1", "model_uniform_1", "model_greedy_1"],
    ]
