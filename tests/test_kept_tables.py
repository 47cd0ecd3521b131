"""What is kept in fewer dims and bits, told in a terminal, report.json and the page; the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from exports import tiny_export
from typer.testing import CliRunner

from embedtrain.artifacts import read_json
from embedtrain.cli.app import app
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.evaluation.groups import terminal_tables
from embedtrain.evaluation.kept_tables import kept_json, kept_sections, kept_text_tables
from embedtrain.evaluation.report import read_results, report_json, report_page
from embedtrain.evaluation.results import Figure, Result
from embedtrain.show.page import Grid, Measured, Plot
from embedtrain.show.plots import PALETTE, interval_plot
from embedtrain.show.tables import table_text
from embedtrain.stages import evaluate
from embedtrain.stages.context import StageContext

SIZES = {"256 dims": 1024, "64 dims": 256, "int8": 384, "binary": 48}


def result(model: str, value: float, form: str = "", task: str = "faq", num_bytes: int = 1536) -> Result:
    """Draws lie 2 points on each side of the value, so that what is kept has an interval."""
    draws = tuple(value + shift for shift in np.linspace(-2, 2, 41).tolist())
    figures = {"ndcg@10": Figure(value, value - 2, value + 2, draws)}
    sizes = {"queries": 20}
    return Result(
        model, task, "retrieval", "ndcg@10", figures, sizes, None, 1.0, form, SIZES.get(form, num_bytes)
    )


TEACHER = [result("teacher", 80), result("teacher", 76, "256 dims"), result("teacher", 60, "64 dims")]
LEAF = [result("leaf", 50), result("leaf", 50, "int8"), result("leaf", 40, "64 dims")]
RESULTS = [result("BM25", 55, num_bytes=0), *LEAF, *TEACHER]


def kept_interval(part: float, whole: float) -> tuple[float, float]:
    shifts = np.linspace(-2, 2, 41)
    low, high = np.percentile(100 * (part + shifts) / (whole + shifts), [2.5, 97.5])
    return float(low), float(high)


def cell(part: float, whole: float) -> str:
    low, high = kept_interval(part, whole)
    return f"{100 * part / whole:.1f} ±{(high - low) / 2:.1f}"


def test_the_terminal_puts_models_beside_each_other() -> None:
    (table,) = kept_text_tables(RESULTS)
    assert table.title == "Kept in fewer dims and bits, per cent of a model's own full vectors"
    assert table.columns == ["task", "vectors", "bytes", "leaf", "teacher"]
    assert table.rows == [  # cuts from the longest down, then the others, wherever they were measured
        ["faq nDCG@10", "256 dims", "1,024", "—", cell(76, 80)],
        ["", "64 dims", "256", cell(40, 50), cell(60, 80)],
        ["", "int8", "384", "100.0 ±0.0", "—"],
    ]
    assert cell(40, 50) == "80.0 ±0.8"
    text = table_text(table.title, table.columns, table.rows, table.note)
    assert "80.0 ±0.8" in text
    assert max(map(len, text.splitlines())) <= 100


def test_several_tasks_have_a_mean() -> None:
    again = [result("leaf", 30, task="titles"), result("leaf", 27, "64 dims", task="titles")]
    (table,) = kept_text_tables([*LEAF[:1], LEAF[2], *again])
    assert [row[:3] for row in table.rows] == [
        ["faq nDCG@10", "64 dims", "256"],
        ["titles nDCG@10", "64 dims", "256"],
        ["mean of 2 tasks", "64 dims", "256"],
    ]
    shifts = np.linspace(-2, 2, 41)
    means = 50 * ((40 + shifts) / (50 + shifts) + (27 + shifts) / (30 + shifts))
    low, high = np.percentile(means, [2.5, 97.5])
    assert table.rows[2][3] == f"85.0 ±{(high - low) / 2:.1f}"
    _, plot, grid = kept_sections([*LEAF[:1], LEAF[2], *again])[0].blocks
    assert isinstance(plot, Plot)
    assert isinstance(grid, Grid)
    assert "full vectors, mean of 2 tasks; bars" in plot.caption
    assert grid.rule_before == {2, 4}
    assert [row[0] for row in grid.rows] == ["faq nDCG@10", "", "titles nDCG@10", "", "mean of 2 tasks", ""]
    assert str(grid.rows[5][4]) == "85.0"
    assert grid.rows[5][3] is None


def test_models_beyond_five_have_a_table_of_their_own() -> None:
    models = [r for n in range(7) for r in (result(f"m{n}", 50), result(f"m{n}", 40, "int8"))]
    assert [table.columns[3:] for table in kept_text_tables(models)] == [
        ["m0", "m1", "m2", "m3", "m4"], ["m5", "m6"]
    ]  # fmt: skip


def test_bytes_of_unlike_models_stand_together() -> None:
    other = [result("big", 90, num_bytes=3072), result("big", 90, "int8")]
    (table,) = kept_text_tables([*RESULTS, *other])
    assert [row[2] for row in table.rows] == ["1,024", "256", "384"]
    grid = kept_sections([*RESULTS, *other])[0].blocks[-1]
    assert isinstance(grid, Grid)
    assert grid.rows[0][2] == "1,536, 3,072"  # not the 0 of BM25


def test_full_vectors_alone_have_no_such_table() -> None:
    full = [r for r in RESULTS if not r.form]
    assert kept_text_tables(full) == kept_sections(full) == kept_json(full) == []
    assert "Fewer dims" not in report_page(full)


def test_other_tables_hold_full_vectors_only() -> None:
    (table,) = terminal_tables(RESULTS)
    assert [row[0] for row in table.rows] == ["BM25", "leaf", "teacher"]
    assert [row[1] for row in table.rows] == ["55.0 ±2.0", "50.0 ±2.0", "80.0 ±2.0 *"]
    page = report_page(RESULTS)
    assert len(re.findall("<td>nDCG@10</td>", page)) == 3  # of all metrics


def test_report_json_holds_what_is_kept() -> None:
    saved = json.loads(json.dumps(report_json(RESULTS)))
    assert read_results(saved) == [r for r in RESULTS if not r.form]
    assert [(one["model"], one["form"]) for one in saved["inherited"]] == [
        ("leaf", "int8"), ("leaf", "64 dims"), ("teacher", "256 dims"), ("teacher", "64 dims")
    ]  # fmt: skip
    one = saved["inherited"][1]
    low, high = kept_interval(40, 50)
    assert one["kept"] == pytest.approx({"value": 80.0, "low": low, "high": high})
    assert (one["num_bytes"], one["metrics"]["ndcg@10"]) == (256, {"value": 40, "low": 38, "high": 42})


def test_nothing_is_kept_of_nothing() -> None:
    results = [result("m", 0.0), result("m", 3, "int8")]
    assert kept_json(results)[0]["kept"] is None
    assert kept_text_tables(results)[0].rows == [["faq nDCG@10", "int8", "384", "—"]]
    plot = kept_sections(results)[0].blocks[1]
    assert isinstance(plot, Plot)  # the full vectors alone


def test_the_page_shows_a_plot_and_every_figure() -> None:
    (section,) = kept_sections(RESULTS)
    _, plot, grid = section.blocks
    assert isinstance(plot, Plot)
    assert isinstance(grid, Grid)
    names = ("full", "256", "64", "dims", "int8", "leaf", "teacher", "per cent kept")
    assert all(f">{name}<" in plot.svg for name in names)
    assert plot.caption == (
        "Per cent kept of a model's own full vectors, faq nDCG@10; bars are 95 % intervals."
    )
    assert grid.columns == [
        "task", "vectors", "bytes", "leaf", "leaf keeps, %", "teacher", "teacher keeps, %"
    ]  # fmt: skip
    assert [row[:3] for row in grid.rows] == [
        ["faq nDCG@10", "full", "1,536"],
        ["", "256 dims", "1,024"],
        ["", "64 dims", "256"],
        ["", "int8", "384"],
    ]
    kept = grid.rows[2][4]
    assert isinstance(kept, Measured)
    assert (kept.value, kept.low, kept.high) == pytest.approx((80.0, *kept_interval(40, 50)))
    assert grid.rows[0][3] == Measured(50, 48, 52)
    assert (grid.rows[0][4], grid.rows[1][3], grid.rows[1][4]) == (None, None, None)
    page = report_page(RESULTS)
    assert page.index("Held-out tasks") < page.index("Fewer dims, fewer bits") < page.index("How it was")
    assert page == report_page(RESULTS)


def test_an_interval_plot_draws_each_series_in_one_colour() -> None:
    series = {"one": {"a": (3.0, 2.0, 4.0), "b": (2.0, 1.0, 3.0)}, "two": {"c": (1.0, 1.0, 1.0)}}
    svg = interval_plot(series, ["a", "b", "c"], "Kept", "per cent", joined=["a", "b"])
    assert all(f">{name}<" in svg for name in ("a", "b", "c", "one", "two", "per cent"))
    assert [f"--series-{n}, {PALETTE[n]}" in svg for n in range(3)] == [True, True, False]
    apart = interval_plot(series, ["a", "b", "c"], "Kept", "per cent")
    assert apart != svg  # no line
    with pytest.raises(ValueError, match="plot 'Kept' has no value to draw"):
        interval_plot({"one": {"z": (1.0, 1.0, 1.0)}}, ["a"], "Kept")


# the command and the stage


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tiny exported model of 32 dims, and test data."""
    place = tmp_path_factory.mktemp("kept")
    _, model = tiny_export(place)
    rows = [Row(f"which is number {n}", (f"the {n} is number {n} of them",)) for n in range(12)]
    (place / "data").mkdir()
    write_rows(place / "data" / "numbers.parquet", rows)
    return str(model), str(place / "data" / "numbers.parquet")


def test_the_command_measures_forms_and_keeps_its_cells(folders: tuple[str, str], tmp_path: Path) -> None:
    model, data = folders
    words = ["evaluate", model, "--data", data, "--out", str(tmp_path), "--truncate", "8", "--truncate", "16"]
    words += ["--quantise", "binary", "--quantise", "int8"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    saved = read_json(tmp_path / "report.json")
    assert [one["form"] for one in saved["inherited"]] == ["16 dims", "8 dims", "binary", "int8"]
    assert [one["num_bytes"] for one in saved["inherited"]] == [64, 32, 4, 32]
    assert {one["model"] for one in saved["results"]} == {"BM25", model}
    assert "Kept in fewer dims and bits" in said.output
    assert "Kept in fewer dims and bits" in (tmp_path / "report.md").read_text()
    assert "Fewer dims, fewer bits" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "cells").iterdir())) == 5
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0
    after = read_json(tmp_path / "report.json")
    assert after["inherited"] == saved["inherited"], "finished cells give the same intervals"
    assert after["results"][1:] == saved["results"][1:]  # but BM25, which is always measured


def test_more_dims_than_any_model_has(folders: tuple[str, str], tmp_path: Path) -> None:
    model, data = folders
    with pytest.raises(
        UserError, match=r"truncation to 32 dims: no model has more dims to cut \(dims: .* 32\)"
    ):
        evaluate.evaluate_folders([model], [data], tmp_path, None, False, Machine(), truncation=(8, 32))
    assert not (tmp_path / "cells").exists()


def test_a_stage_measures_forms_of_its_models(folders: tuple[str, str], tmp_path: Path) -> None:
    model, data = folders
    stage = {"name": "report", "kind": "evaluate", "models": [model], "data": [data], "truncation": [8]}
    forms = {"quantisation": ["int8", "binary"], "report": False}
    run = Run.model_validate(
        {
            "name": "r",
            "base": {"model": model},
            "text": {"max_query_tokens": 12, "max_document_tokens": 20},
            "sources": {"numbers": {"rows": data}},
            "stages": [stage | forms],
        }
    )
    evaluate.run_stage(StageContext(run, find_stage(run, "report"), Machine(), tmp_path, {}))
    saved = read_json(tmp_path / "report.json")
    assert [one["form"] for one in saved["inherited"]] == ["8 dims", "int8", "binary"]
    by_command = tmp_path / "command"
    evaluate.evaluate_folders(
        [model], [data], by_command, None, True, Machine(), truncation=[8], quantisation=["int8", "binary"]
    )
    for one, other in zip(
        saved["inherited"], read_json(by_command / "report.json")["inherited"], strict=True
    ):
        assert one | {"seconds": 0} == other | {"seconds": 0}
