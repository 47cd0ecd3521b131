"""How models differ from the first of a table: paired, with intervals, wherever it is told."""

import numpy as np
import pytest

from embedtrain.evaluation.differences import Differences, difference_sections, difference_tables
from embedtrain.evaluation.intervals import bootstrap, bounds, mean_of
from embedtrain.evaluation.report import report_json, report_page
from embedtrain.evaluation.results import Figure, Result
from embedtrain.show.page import Grid
from embedtrain.show.tables import table_text

NUM = 118
GENERATOR = np.random.default_rng(5)
HARDNESS_N = GENERATOR.normal(60, 30, NUM)  # of each query, for every model
NOISE = {name: GENERATOR.normal(gain, 6, NUM) for name, gain in (("base", 0), ("tuned", 4), ("worse", -3))}


def values(model: str) -> np.ndarray:
    """What a model reaches on each query."""
    return HARDNESS_N + NOISE[model]


def result(model: str, task: str = "faq", values_N: np.ndarray | None = None, form: str = "") -> Result:
    values_N = values(model) if values_N is None else values_N
    draws = bootstrap(mean_of(values_N), len(values_N))
    figure = Figure(float(values_N.mean()), *bounds(draws), tuple(draws.tolist()))
    sizes = {"queries": len(values_N)}
    return Result(model, task, "retrieval", "ndcg@10", {"ndcg@10": figure}, sizes, None, 1.0, form)


RESULTS = [result("BM25", values_N=HARDNESS_N - 9), result("base"), result("tuned"), result("worse")]


def test_a_difference_is_the_bootstrap_of_each_query_s_own() -> None:
    """The slow twin resamples the differences themselves."""
    for model in ("tuned", "worse"):
        own_N = values(model) - values("base")
        figure = Differences(RESULTS).figure(model, ["faq"])
        assert figure is not None
        assert figure.value == pytest.approx(own_N.mean())
        assert figure.interval == pytest.approx(bounds(bootstrap(mean_of(own_N), NUM)))
        alone = RESULTS[1].figure.interval
        assert figure.interval[1] - figure.interval[0] < (alone[1] - alone[0]) / 2


def test_the_mean_of_tasks_draws_each_of_them() -> None:
    others = GENERATOR.normal(50, 9, (2, 40))
    results = [*RESULTS, result("base", "titles", others[0]), result("tuned", "titles", others[1])]
    found = Differences(results)
    assert [tasks for _, tasks in found.rows] == [("faq",), ("titles",), ("faq", "titles")]
    assert found.rows[-1][0] == "mean of 2 held-out tasks"
    mean = found.figure("tuned", ["faq", "titles"])
    parts = [found.figure("tuned", [task]) for task in ("faq", "titles")]
    assert mean is not None
    assert mean.value == pytest.approx(np.mean([part.value for part in parts if part]))
    assert mean.draws == pytest.approx(np.mean([part.draws for part in parts if part], axis=0))
    assert found.figure("worse", ["faq", "titles"]) is None  # it was not measured on both
    apart = Differences(results, in_domain=["titles"])
    assert [tasks for _, tasks in apart.rows] == [("faq",), ("titles",)]  # no mean over both kinds
    (table,) = difference_tables(results)
    assert [row[2] for row in table.rows][1:] == ["—", "—"]


def test_the_table_marks_what_is_no_chance() -> None:
    (table,) = difference_tables(RESULTS)
    assert (table.title, table.columns) == ("Differences from base", ["task", "tuned", "worse"])
    ((heading, tuned, worse),) = table.rows
    assert heading == "faq nDCG@10"
    assert tuned.startswith("+")
    assert worse.startswith("-")
    assert tuned.endswith("] *")
    same = [RESULTS[1], result("again", values_N=values("base") + GENERATOR.normal(0, 6, NUM))]
    assert not difference_tables(same)[0].rows[0][1].endswith("*")
    text = table_text(table.title, table.columns, table.rows, table.note)
    assert max(map(len, text.splitlines())) <= 100


def test_more_models_than_a_terminal_is_wide_for() -> None:
    results = [result(f"model_{n}", values_N=HARDNESS_N + n) for n in range(6)]
    assert [table.columns[1:] for table in difference_tables(results)] == [
        ["model_1", "model_2", "model_3"],
        ["model_4", "model_5"],
    ]


def test_a_table_has_no_row_of_dashes_alone() -> None:
    results = [result(f"model_{n}", values_N=HARDNESS_N + n) for n in range(5)]
    results += [result(f"model_{n}", "titles", HARDNESS_N + n) for n in (0, 1)]
    headings = [[row[0] for row in table.rows] for table in difference_tables(results)]
    assert headings == [["faq nDCG@10", "titles nDCG@10", "mean of 2 held-out tasks"], ["faq nDCG@10"]]
    strangers = [result(f"stranger_{n}", "nothing else", HARDNESS_N) for n in (0, 1, 2)]
    assert [table.columns[1:] for table in difference_tables([*results[:1], *strangers, results[1]])] == [
        ["model_1"]
    ]


@pytest.mark.parametrize(
    "results",
    [
        RESULTS[:2],  # BM25 and one model
        [RESULTS[1], result("tuned", "titles")],  # on nothing in common
        [RESULTS[1], result("base", form="int8")],  # one model in two forms
        [Result.from_json(RESULTS[1].to_json()), *RESULTS[2:]],  # the first is mteb's own, without draws
        [Result.from_json(one.to_json()) for one in RESULTS],  # read from a report, without draws
    ],
)
def test_nothing_to_compare(results: list[Result]) -> None:
    assert difference_tables(results) == difference_sections(results) == []
    assert report_json(results)["differences"] == []


def test_in_the_report_and_on_the_page() -> None:
    told = report_json(RESULTS)["differences"]
    assert [(one["model"], one["less"], one["tasks"]) for one in told] == [
        ("tuned", "base", ["faq"]),
        ("worse", "base", ["faq"]),
    ]
    assert told[0]["low"] < told[0]["value"] < told[0]["high"]
    (section,) = difference_sections(RESULTS)
    _, grid = section.blocks
    assert isinstance(grid, Grid)
    (table,) = difference_tables(RESULTS)
    assert grid.rows == table.rows
    page = report_page(RESULTS)
    assert "Each model less the first one, base, on the same test texts" in page
    assert table.rows[0][1] in page
