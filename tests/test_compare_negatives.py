"""The comparison of negatives: its statistics, its arms, and that a finished cell is not made again."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from word_embedder import WordEmbedder  # noqa: E402

from embedtrain.config.check import check_run  # noqa: E402
from embedtrain.config.schema import Run  # noqa: E402
from embedtrain.data.counts import count_rows  # noqa: E402
from embedtrain.evaluation.measure import measure as measure_task  # noqa: E402
from embedtrain.evaluation.tasks import Retrieval  # noqa: E402
from embedtrain.templates import validate_template  # noqa: E402
from tools.cells import cell_files, make_cells, measure  # noqa: E402
from tools.negative_arms import ARMS, REFERENCE, SIZES, Arm, comparisons, make_run  # noqa: E402
from tools.paired import Difference, compare, paired_t, query_interval  # noqa: E402

# --- statistics ---------------------------------------------------------------------------------------------


def test_paired_t_is_scipys() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 5))
    low, high, p, _ = paired_t(first - second)
    truth = stats.ttest_rel(first, second)
    assert p == pytest.approx(truth.pvalue)
    assert (low, high) == pytest.approx(tuple(truth.confidence_interval(0.95)))


def test_a_difference_that_can_be_found_is_found_four_times_out_of_five() -> None:
    generator, found, num = np.random.default_rng(1), 0, 4000
    spread = 2.0
    true = (stats.t.ppf(0.975, 4) + stats.t.ppf(0.8, 4)) * spread / np.sqrt(5)
    for _ in range(num):
        p = paired_t(generator.normal(true, spread, 5))[2]
        found += p is not None and p < 0.05
    assert found / num == pytest.approx(0.8, abs=0.04)
    exact = paired_t(true + spread * np.array([-1, -1, 0, 1, 1]))[3]
    assert exact == pytest.approx(true)  # those five have the spread 2 exactly


def test_one_seed_has_no_interval() -> None:
    assert paired_t(np.array([3.0])) == (None, None, None, None)
    one = compare("a", "b", {name: {"t": np.ones((1, 4))} for name in "ab"})
    assert not one.is_real
    assert one.by_seed == (0.0,)


def test_query_interval_is_that_of_many_drawn_by_hand() -> None:
    generator = np.random.default_rng(2)
    tasks = [generator.normal(1, 3, 40), generator.normal(0, 1, 25)]
    drawn = [np.mean([generator.choice(t, len(t)).mean() for t in tasks]) for _ in range(4000)]
    assert query_interval(tasks) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.06)


def test_a_difference_counts_where_both_intervals_leave_zero_out() -> None:
    def made(low: float, high: float, query_low: float, query_high: float) -> bool:
        return Difference("a", "b", (1.0, 2.0), low, high, 0.01, 1.0, query_low, query_high).is_real

    assert made(0.1, 2, 0.2, 3)
    assert made(-2, -0.1, -3, -0.2)
    assert not made(-0.1, 2, 0.2, 3)
    assert not made(0.1, 2, -0.2, 3)


def test_compare_takes_the_mean_of_tasks_by_seed() -> None:
    generator = np.random.default_rng(3)
    values = {
        name: {task: generator.random((5, num)) for task, num in (("x", 7), ("y", 30))} for name in "ab"
    }
    expected = [
        100 * np.mean([values["a"][task][seed].mean() - values["b"][task][seed].mean() for task in "xy"])
        for seed in range(5)
    ]
    assert compare("a", "b", values).by_seed == pytest.approx(tuple(expected))


# --- arms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_runs_are_sound(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = make_run(size, "runs", ARMS, 1)
    assert check_run(run, "run", count_rows=count_rows, validate_template=validate_template) == []


def test_arms_differ_in_their_negatives_alone() -> None:
    run = make_run("micro", "runs", ARMS, 3)
    trained = [s.model_dump(exclude={"name", "rows"}) for s in run.stages if s.name.startswith("train_")]
    assert len(trained) == len(ARMS)
    assert [one for one in trained if one != trained[1]] == [trained[0] | {"num_negatives": 0}]
    mined = [s for s in run.stages if s.kind == "mine"]
    assert len({(s.max_rows, s.corpus_size, s.sources, s.rows) for s in mined}) == 1
    assert {s.fill for s in run.stages if s.kind == "select"} == {"random"}


def test_every_arm_is_compared() -> None:
    pairs = comparisons([arm.name for arm in ARMS])
    assert {name for pair in pairs for name in pair} == {REFERENCE, *(arm.name for arm in ARMS)}
    assert len(set(pairs)) == len(pairs)
    assert comparisons(["random", "own_naive"]) == [(REFERENCE, "random"), ("own_naive", "random")]


# --- cells --------------------------------------------------------------------------------------------------


def task_of(num: int) -> Retrieval:
    words = ["apple", "pear", "plum", "train", "river", "stone", "cloud", "glass"]
    generator = np.random.default_rng(num)
    documents = tuple(" ".join(generator.choice(words, 4)) + f" {n}" for n in range(num))
    queries = tuple(" ".join(text.split()[:2]) for text in documents[: num // 2])
    names = tuple(f"d{n}" for n in range(num))
    judged = {f"q{n}": {f"d{n}": 1} for n in range(len(queries))}
    return Retrieval("words", tuple(judged), queries, names, documents, judged)


def test_the_mean_of_a_cell_is_what_evaluate_tells() -> None:
    task, embedder = task_of(40), WordEmbedder(24)
    values = measure(embedder, [task])["words"]
    assert 100 * np.mean(values) == pytest.approx(measure_task(embedder, task).figure.value)
    assert len(set(values)) > 2


def test_a_finished_cell_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tasks, asked = [task_of(30)], list[list[str]]()

    def train(run: Run) -> None:
        files = cell_files(run, tasks)
        asked.append(list(files))
        for _, model in files.values():
            model.mkdir(parents=True)

    def cells(arms: Sequence[Arm], seed: int) -> list[str]:
        make = partial(make_run, "smoke", str(tmp_path), seed=seed)
        return list(make_cells(make, arms, seed, tasks, train, lambda folder: WordEmbedder(24)))

    for arms, seed in ((ARMS[:2], 1), (ARMS[:2], 1), (ARMS[:3], 1), (ARMS[:1], 2)):
        assert cells(arms, seed) == [REFERENCE, *(arm.name for arm in arms)]
    assert asked == [
        [REFERENCE, "model_in_batch_1", "model_random_1"],
        ["model_bm25_1"],
        ["model_in_batch_2"],
    ]
    assert list(tmp_path.glob("smoke/model_*")) == []
