"""tools/torture.py: a few kills, and a difference that it finds."""

from pathlib import Path

import pytest

from embedtrain.artifacts import read_json
from tools.killed import How
from tools.torture import differences, torture


def test_two_kills(tmp_path: Path) -> None:
    """One process and one stage."""
    found = torture(tmp_path, How(processes=1, steps=12, stages=1), 2, seed=3)
    assert found["passed"], found["different"]
    assert found["kills"] == sum(found["kills_by_place"].values()) == 2
    assert found["launches"] >= 2 + found["runs"]
    assert len(found["losses"]["adapted-" + stage_hash(tmp_path)]) == 12


def stage_hash(place: Path) -> str:
    """Of the one stage's folder."""
    [folder] = (place / "whole" / "r").glob("adapted-*")
    assert read_json(folder / "done.json")["facts"]["best"]["step"] in (4, 8, 12)
    return folder.name.partition("-")[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_kills_of_two_processes(tmp_path: Path) -> None:
    found = torture(tmp_path, How(processes=2, steps=12), 3, seed=1)
    assert found["passed"], found["different"]
    assert {name.partition("-")[0] for name in found["losses"]} == {"adapted", "tuned", "taught"}


def test_a_difference_is_found() -> None:
    same = {"weights": {"a": "1"}, "curves": {"s": [{"loss": 0.1}]}}
    other = {"weights": {"a": "1", "b": "2"}, "curves": {"s": [{"loss": 0.10000000000000002}]}}
    assert differences(same, same) == set()
    assert differences(other, same) == {"b", "s"}
