"""docs/distillation.md: its files are valid runs, its commands work, and it tells the recipes as they are."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from exports import tiny_export
from tiny_models import TEXTS, save_tiny
from typer.testing import CliRunner

from embedtrain.artifacts import hash_file, read_json, write_json
from embedtrain.cli import app
from embedtrain.config.check import read_config
from embedtrain.config.distilling import Distil
from embedtrain.config.errors import ConfigError
from embedtrain.config.schema import Run
from embedtrain.config.stages import Evaluate, Export, Train
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row, write_rows
from embedtrain.stages.distil import FIT_TEXTS
from embedtrain.templates import validate_template

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^embedtrain (.*)$", PAGE, re.MULTILINE)
SCORED = """
name: docs
base: {model: my_student}
sources: {mine: {rows: my_rows.parquet}}
stages:
"""
SMALL = {
    "stages.distilled.held_out_texts": 16,
    "stages.distilled.epochs_per_cycle": 1,
    "stages.report.truncation": "[16, 8]",
}


def blocks(title: str, page: str = PAGE) -> list[str]:
    """The blocks of YAML with this title."""
    return re.findall(rf"^```yaml title=\"{re.escape(title)}\"\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the page names: a student, a teacher, rows, documents and tests."""
    folder = tmp_path_factory.mktemp("docs")
    save_tiny("llama", folder / "my_student", seed=3)
    _, teacher = tiny_export(folder / "teacher")
    (folder / "my_teacher").symlink_to(teacher)
    words = sorted(set(" ".join(TEXTS).split()))
    rng = np.random.default_rng(0)

    def text(num: int, n: int) -> str:
        return f"{' '.join(rng.choice(words, num))} {n}"

    rows = [
        Row(text(4, n), (text(9, n),), tuple(text(8, n) for _ in range(7)), (0.9,), (0.3,) * 6 + (0.1,))
        for n in range(80)
    ]
    write_rows(folder / "my_rows.parquet", rows)
    documents = [text(8, n) for n in range(40)]
    (folder / "my_documents.txt").write_text("\n".join(documents) + "\n", encoding="utf-8")
    (folder / "my_tests").mkdir()
    tests = [{"query": text(4, n), "pos": [text(9, n)]} for n in range(20)]
    lines = "".join(json.dumps(line) + "\n" for line in tests)
    (folder / "my_tests" / "held_out.jsonl").write_text(lines, encoding="utf-8")
    (folder / "vectors").mkdir()
    for side, texts in (
        ("query", [row.query for row in rows]),
        ("document", [*(row.positives[0] for row in rows), *documents]),
    ):
        (folder / "vectors" / f"{side}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (folder / "leaf.yaml").write_text(blocks("leaf.yaml")[0], encoding="utf-8")
    return folder


def checked(path: Path) -> Run:
    """The run, once nothing is wrong with it."""
    return read_config(path, count_rows=count_rows, validate_template=validate_template)[0]


def written(place: Path, name: str, text: str) -> Path:
    """A run file of this text."""
    (place / name).write_text(text, encoding="utf-8")
    return place / name


def do(command: str) -> str:
    """What a command says; a run is made small, and vectors are cut to dims that the tiny models have."""
    for dims, fewer in (("128", "16"), ("64", "8")):
        command = command.replace(f"--truncate {dims}", f"--truncate {fewer}")
    small = [f"--set={key}={value}" for key, value in SMALL.items()] if command.startswith("run") else []
    done = CliRunner().invoke(app, [*command.split(), *small])
    assert done.exit_code == 0, f"{command}: {done.output} {done.exception!r}"
    return done.output


def test_the_files_are_valid_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    leaf = checked(place / "leaf.yaml")
    assert [type(stage) for stage in leaf.stages] == [Distil, Export, Evaluate]
    assert len(blocks("stages")) == 2
    for stages in blocks("stages"):
        (stage,) = checked(written(place, "scored.yaml", SCORED + stages)).stages
        assert isinstance(stage, Train)
        assert {term.kind for term in stage.objective.terms} == {"distill_kl", "infonce"}
        assert stage.objective.matryoshka is not None


def test_a_wrong_stage_would_be_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    stages = blocks("stages")[0].replace("  teacher: {model: my_teacher}\n", "")
    with pytest.raises(ConfigError, match="teacher"):
        checked(written(place, "wrong.yaml", SCORED + stages))


def test_the_page_tells_the_recipes_as_they_are() -> None:
    distilled = {}
    for name in ("small", "paper"):
        run = checked_in_root(f"configs/recipes/leaf_ir/{name}.yaml")
        distilled[name] = next(stage for stage in run.stages if isinstance(stage, Distil))
    small, paper = distilled["small"], distilled["paper"]
    assert (paper.cycles, paper.epochs_per_cycle, paper.lr, paper.lr * paper.final_fraction) == (
        3, 10, 1e-4, pytest.approx(1e-5),
    )  # fmt: skip
    assert (small.cycles, small.epochs_per_cycle, small.lr, small.lr * small.final_fraction) == (
        3, 0.6, 3e-4, pytest.approx(3e-5),
    )  # fmt: skip
    assert f"{small.cycles} cycles of {small.epochs_per_cycle} epochs of {small.max_texts:,} texts" in PAGE
    assert (small.projection, paper.projection) == ("fitted", "drawn")
    assert {stage.batch_size for stage in (small, paper)} == {32}
    assert {stage.distance for stage in (small, paper)} == {"squared_l2"}
    assert f"at most {FIT_TEXTS:,} texts" in PAGE


def checked_in_root(path: str) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return checked(Path(path))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_work_in_the_order_of_the_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert [command.split()[0] for command in COMMANDS] == ["run", "run", *["evaluate"] * 3, *["encode"] * 2]
    outputs = [do(command) for command in COMMANDS if "configs/" not in command]
    assert "my_teacher" in outputs[1]
    curve = (next(place.glob("runs/leaf/distilled-*")) / "curve.jsonl").read_text().splitlines()
    assert len(json.loads(curve[-1])) > 5
    assert (place / "report" / "report.html").is_file()
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(code, scope := {})
    assert scope["documents"].shape == (1, 32)
    assert stored_run(place) == pytest.approx(teachers_run(place), rel=1e-4)


def teachers_run(place: Path) -> list[float]:
    """The held-out losses of the page's run."""
    return losses(next(place.glob("runs/leaf/distilled-*")))


def stored_run(place: Path) -> list[float]:
    """The same from the vectors that the page's commands made, and of nothing else."""
    sides = ("query", "document")
    notes = {side: {"sha256": hash_file(place / "vectors" / f"{side}.txt")} for side in sides}
    write_json(place / "vectors" / "vectors.json", notes)
    run = yaml.safe_load(blocks("leaf.yaml")[0])
    run |= {"name": "stored", "stages": run["stages"][:1]}
    run["stages"][0] |= yaml.safe_load(blocks("teacher")[0])
    path = written(place, "stored.yaml", yaml.safe_dump(run))
    small = [f"--set={key}={value}" for key, value in SMALL.items() if "distilled" in key]
    done = CliRunner().invoke(app, ["run", str(path), *small])
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return losses(next(place.glob("runs/stored/distilled-*")))


def losses(folder: Path) -> list[float]:
    """Of a finished stage, at the end of each cycle."""
    return [cycle["validation/loss"] for cycle in read_json(folder / "done.json")["facts"]["cycles"]]
