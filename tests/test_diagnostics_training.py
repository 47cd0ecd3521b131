"""Diagnostics of a training: in its curve when due, the same on two processes, and without effect on it."""

from pathlib import Path

import pytest
from contrastive import tiny_folder
from processes import run_on
from training import Curve, curve_of, parameters, same, tiny_stage, train_tiny

from embedtrain.config.stages import Train

EVERY, STEPS = 2, 5
TERMS = [
    {
        "kind": "infonce",
        "temperature": {"initial": 0.1, "minimum": 0.05, "maximum": 0.2},
        "masks": [{"kind": "same_text"}, {"kind": "above_margin", "margin": 0.05}],
        "focal": {"gamma": 0.5},
        "mixing": [{"kind": "pair", "count": 2, "shared": True}, {"kind": "list", "parents": "hardest"}],
        "query_query": True,
    },
    {"kind": "infonce", "temperature": 0.5, "in_batch_negatives": False},
    {"kind": "spread", "weight": 0.1},
]
FIGURES = {
    "accuracy_at_1",
    "positive_cosine",
    "hardest_negative_cosine",
    "mixed_negative_cosine",
    "hidden/same_text",
    "hidden/above_margin",
    "focal_weight",
    "suspected_false_negatives",
    "alignment",
    "uniformity_queries",
    "uniformity_documents",
    "effective_rank",
}


def stage(**changes: object) -> Train:
    """A short training whose batches have something of everything."""
    objective = {"terms": TERMS, "matryoshka": {"dims": [32, 8]}}
    settings = {"objective": objective, "steps": STEPS, "diagnostics_every_steps": EVERY}
    return tiny_stage(**(settings | changes))


def diagnosed(model: str, folder: str) -> Curve:
    """Run on any number of processes, without dropout: the curve that the first one wrote."""
    train_tiny(model, Path(folder), stage(lora={"rank": 4, "alpha": 8}))
    return curve_of(Path(folder))


def of_diagnostics(line: dict[str, float | int | str]) -> dict[str, float]:
    found = {name: value for name, value in line.items() if name.startswith("diagnostics/")}
    return {name.removeprefix("diagnostics/"): float(value) for name, value in found.items()}


def test_two_processes_diagnose_as_one(tmp_path: Path) -> None:
    expected = diagnosed(tiny_folder(), str(tmp_path / "one"))
    found, _ = run_on(2, diagnosed, tiny_folder(), str(tmp_path / "two"))
    due = [line for line in expected if of_diagnostics(line)]
    assert [line["step"] for line in due] == [1, 3, 5]
    for line, reference in zip(found, expected, strict=True):
        assert of_diagnostics(line) == pytest.approx(of_diagnostics(reference), rel=1e-4, abs=1e-5)
        assert {"loss", "infonce", "infonce_2", "spread", "infonce_temperature"} <= line.keys()
        assert line["infonce_2"] != line["infonce"]
    of_second_term = {"accuracy_at_1", "hardest_negative_cosine", "suspected_false_negatives"}
    further = {f"infonce_2/{name}" for name in of_second_term | {"hidden/same_text"}}
    for line in due:
        figures = of_diagnostics(line)
        assert figures.keys() == FIGURES | further
        assert figures["positive_cosine"] == pytest.approx(1 - figures["alignment"] / 2, abs=1e-5)
        assert 1 < figures["effective_rank"] <= 32
        assert all(0 <= figures[name] <= 1 for name in figures if "hidden" in name or "accuracy" in name)
    assert max(of_diagnostics(line)["hidden/above_margin"] for line in due) > 0


def test_diagnosing_changes_nothing_else(tmp_path: Path) -> None:
    """Parameters and curve bit for bit, with dropout."""
    _, watched = train_tiny(tiny_folder(), tmp_path / "watched", stage())
    _, alone = train_tiny(tiny_folder(), tmp_path / "alone", stage(diagnostics_every_steps=0))
    curve = curve_of(tmp_path / "watched")
    assert any(of_diagnostics(line) for line in curve)
    bare = [{name: x for name, x in line.items() if "diagnostics/" not in name} for line in curve]
    assert bare == curve_of(tmp_path / "alone")
    assert same(parameters(watched), parameters(alone))
