"""What our own files name stays in the folder of the run."""

from pathlib import Path

import pytest
from tiny_runs import tiny_run

from embedtrain.artifacts import is_inside, leads_inside, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import resolved
from embedtrain.config.schema import Machine, Run
from embedtrain.stages.context import STAGE_FILE, read_context
from embedtrain.stages.run_report.facts import made_by

STAGE = {
    "name": "tuned",
    "kind": "train",
    "objective": {"terms": [{"kind": "infonce", "temperature": 0.05}]},
    "batch_size": 4,
    "steps": 2,
    "lr": 1e-3,
}


def write_stage(folder: Path, run: Run, **inputs: str) -> Path:
    """stage.json of a stage in a folder of the run."""
    machine = Machine().model_dump(mode="json")
    place = folder / "r" / "tuned-01234567.partial"
    write_json(
        place / STAGE_FILE, {"run": resolved(run), "stage": "tuned", "machine": machine, "inputs": inputs}
    )
    return place


@pytest.mark.parametrize("way", ["..", "../../elsewhere", "/", "r/../../elsewhere"])
def test_a_stage_reads_folders_of_its_run_alone(tmp_path: Path, way: str) -> None:
    run = tiny_run(tmp_path, {"one": {}}, STAGE)
    good = write_stage(tmp_path, run, taught=str(tmp_path / "r/taught-89abcdef"))
    assert read_context(good).inputs == {"taught": tmp_path / "r/taught-89abcdef"}
    path = str(tmp_path / "r" / way)
    folder = write_stage(tmp_path, run, taught=path)
    with pytest.raises(UserError) as raised:
        read_context(folder)
    assert str(raised.value) == (
        f"{folder}/stage.json: inputs > taught: found '{Path(path)}', expected a folder beside {folder}"
    )
    assert made_by(run, tmp_path / "r", {"tuned": folder}) == {"tuned": folder}


@pytest.mark.parametrize("key", ["name", "stages.taught.name", "stages.taught.link"])
@pytest.mark.parametrize("value", ["..", "../x", "/x", "a/b"])
def test_names_that_become_folders_are_plain(tmp_path: Path, key: str, value: str) -> None:
    values = resolved(tiny_run(tmp_path, {"one": {}}, STAGE))
    section = values["stages"][0] if key.startswith("stages") else values
    section[key.rpartition(".")[2]] = "plain"
    Run.model_validate(values)
    section[key.rpartition(".")[2]] = value
    with pytest.raises(ValueError, match="should match pattern"):
        Run.model_validate(values)


def test_a_source_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        tiny_run(tmp_path, {"../one": {}}, STAGE)


def test_inside(tmp_path: Path) -> None:
    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/out").symlink_to(tmp_path)
    (tmp_path / "folder/in").symlink_to(tmp_path / "folder/sub")
    inside = ["", ".", "sub", "sub/a", "in", "absent", "a..b"]
    assert all(is_inside(name) and leads_inside(tmp_path / "folder", name) for name in inside)
    outside = ["..", "../folder", "sub/../..", "sub/../sub", "/", str(tmp_path / "folder/sub"), 1, None]
    assert not any(is_inside(name) or leads_inside(tmp_path / "folder", name) for name in outside)
    assert is_inside("out")
    assert not leads_inside(tmp_path / "folder", "out")
