"""What a table of variants tells: verdicts, the planted control, files, plot and page."""

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ablated import write_run

from embedtrain.ablation.paired import Seen
from embedtrain.ablation.report import show, write_all
from embedtrain.ablation.setup import CONTROL, FULL, Asked, Setup, prepare
from embedtrain.ablation.verdicts import Family, Measured, families, gather
from embedtrain.artifacts import read_json
from embedtrain.config.ablations import read_ablation
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.tasks import Retrieval, Similarity, Task
from embedtrain.show.forest import DOWN, NEITHER, UP, Effect, forest_plot
from embedtrain.show.tables import markdown_table

KINDS = {"find": "retrieval", "ask": "retrieval", "alike": "similarity"}
SHIFTS = {FULL: 0.0, "no focal": -6.0, "causal": 5.0, "no soup": 0.1, CONTROL: -20.0}
TASKS: list[Task] = [
    Retrieval("find", ("q",), ("a",), ("d",), ("b",), {"q": {"d": 1}}),
    Retrieval("ask", ("q",), ("a",), ("d",), ("b",), {"q": {"d": 1}}),
    Similarity("alike", ("a", "b"), ("c", "d"), scores=(1.0, 2.0)),
]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("table")
    vary = {"no focal": ["focal=off"], "causal": ["attention=causal"], "no soup": ["soup=off"]}
    ablation, name = read_ablation(write_run(folder), {"vary": vary, "model": "souped"})
    return prepare(Asked(ablation, name, "ablations/parts.yaml", None))


def measured(num_seeds: int = 5, shifts: Mapping[str, float] = SHIFTS) -> Measured:
    """Figures around 50 that are so much higher or lower, the same test items for all."""
    generator = np.random.default_rng(0)
    drawn = {task: generator.normal(0, 2, 1000) for task in KINDS}
    found = {}
    for name, shift in shifts.items():
        values = {task: 50 + shift + generator.normal(0, 0.5, num_seeds) for task in KINDS}
        found[name] = {task: Seen(values[task], values[task][:, None] + drawn[task]) for task in KINDS}
    return found


def table(found: Measured) -> Family:
    return families(found, KINDS)[0]


def verdicts(one: Family) -> list[str]:
    return [one.verdict(name) for name in one.differences]


def test_a_table_over_all_tasks_and_one_for_each_kind() -> None:
    found = families(measured(), KINDS)
    assert [(one.title, one.tasks) for one in found] == [
        ("all tasks", ("find", "ask", "alike")),
        ("retrieval", ("find", "ask")),
        ("similarity", ("alike",)),
    ]
    values = measured()
    assert found[1].means["causal"] == pytest.approx(
        np.mean([values["causal"][task].values_S.mean() for task in ("find", "ask")])
    )
    assert [one.title for one in families(measured(), dict.fromkeys(KINDS, "retrieval"))] == ["all tasks"]


def test_verdicts_are_told_where_the_control_is_worse() -> None:
    one = table(measured())
    assert verdicts(one) == ["worse", "better", "within noise", "worse"]
    told = list(one.says("temperature=0.5"))
    assert re.fullmatch(
        r"Minimum detectable difference: \d\.\d\d points \(from \d\.\d\d to \d\.\d\d over the rows\), found "
        r"four times out of five with 5 paired seeds\.",
        told[0],
    )
    worse = f"{-one.differences[CONTROL].mean:.2f}"
    assert told[1] == f"The planted control (temperature=0.5) is {worse} points worse: the table has power."
    assert told[2] == "Chance alone would put about 0.15 of 3 rows beyond noise."


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_a_control_that_is_not_worse_takes_every_verdict_away(shift: float) -> None:
    one = table(measured(shifts=SHIFTS | {CONTROL: shift}))
    assert one.differences["no focal"].verdict == "worse"
    assert verdicts(one) == ["no power"] * 4
    assert list(one.says("temperature=0.5"))[1] == (
        f"The planted control (temperature=0.5) is {one.differences[CONTROL].mean:+.2f} points from the full "
        "recipe, not worse beyond noise: the table has no power, and no verdict is given."
    )


def test_a_family_has_power_by_its_own_control() -> None:
    found = {name: dict(of_tasks) for name, of_tasks in measured().items()}
    found[CONTROL]["alike"] = found[FULL]["alike"]
    assert [one.has_power for one in families(found, KINDS)] == [True, True, False]


def test_one_seed_claims_nothing() -> None:
    one = table(measured(1))
    assert verdicts(one) == ["one seed"] * 4
    assert list(one.says("x")) == [
        "One seed: nothing can be said of what seeds explain, and no difference is claimed."
    ]
    assert one.detectable is None


def test_results_of_seeds_become_one_value_each() -> None:
    def result(value: float, *draws: float) -> Result:
        figure = Figure(value, 0.0, 100.0, draws)
        return Result("m", "find", "retrieval", "ndcg@10", {"ndcg@10": figure}, {}, None, 0.0)

    one = gather([result(1.0, 0.5, 1.5), result(2.0, 1.0, 3.0)])
    assert one.values_S.tolist() == [1.0, 2.0]
    assert one.draws_SR.tolist() == [[0.5, 1.5], [1.0, 3.0]]


# --- files --------------------------------------------------------------------------------------------------


def test_the_files_tell_the_same(setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured()
    tables = families(found, KINDS)
    write_all(tmp_path, setup, [1, 2, 3, 4, 5], TASKS, found, tables)
    saved = read_json(tmp_path / "ablation.json")
    assert saved["seeds"] == [1, 2, 3, 4, 5]
    assert saved["variants"]["causal"] == {
        "changes": ["attention=causal"],
        "overrides": ["encoder.attention=causal"],
    }
    assert [stage["name"] for stage in saved["run"]["stages"]][-1] == "souped"
    assert saved["tasks"]["find"]["metric"] == "ndcg@10"
    assert saved["values"][FULL]["ask"] == pytest.approx(found[FULL]["ask"].values_S, abs=1e-4)
    whole = saved["tables"][0]
    assert {name: one["verdict"] for name, one in whole["differences"].items()} == {
        name: tables[0].verdict(name) for name in tables[0].differences
    }
    assert whole["differences"]["causal"]["difference"] == pytest.approx(
        tables[0].differences["causal"].mean, abs=1e-4
    )
    assert whole["detectable"] > 0
    assert whole["has_power"] is True
    page = (tmp_path / "ablation.md").read_text()
    assert page.count("| full recipe | ") == 3
    assert "| causal | attention=causal |" in page
    assert "- The planted control (temperature=0.5) is " in page
    show(setup, tables)
    told = capsys.readouterr().out
    assert all(len(line) <= 100 for line in told.splitlines())
    assert re.search(r"no focal .* worse", told)


def test_the_page_loads_nothing_and_holds_every_verdict(setup: Setup, tmp_path: Path) -> None:
    found = measured()
    write_all(tmp_path, setup, [1, 2, 3, 4, 5], TASKS, found, families(found, KINDS))
    page = (tmp_path / "ablation.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert page.count("<svg") == 3
    for word in ("better", "worse", "within noise", "the table has power", "attention=causal"):
        assert word in page


def test_the_plot_draws_each_effect_in_its_colour() -> None:
    effects = [
        Effect("up", 1.0, (0.5, 1.5), (0.6, 1.4), 1),
        Effect("down", -1.0, (-1.5, -0.5), None, -1),
        Effect("neither", 0.1, (-0.5, 0.7)),
    ]
    svg = forest_plot(effects, "effects", "points")
    ElementTree.fromstring(svg)
    assert all(name in svg for name in ("up", "down", "neither", "points"))
    for color in (UP, DOWN, NEITHER):
        assert color in svg
    assert forest_plot(effects, "effects", "points") == svg
    with pytest.raises(ValueError, match="plot 'none' has no effect to draw"):
        forest_plot([], "none")


def test_a_table_of_markdown_has_as_many_cells_in_each_row(setup: Setup, tmp_path: Path) -> None:
    found = measured(1)
    write_all(tmp_path, setup, [1], TASKS, found, families(found, KINDS))
    lines = [line for line in (tmp_path / "ablation.md").read_text().splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in lines} == {
        markdown_table(["a"] * n, []).splitlines()[0].count("|") for n in (2, 7)
    }
