"""The files at the size of the papers and their pages: what is whose, what stands in, what is made small."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from paper_models import BASES, EMBEDDERS, LAYERS, RERANKERS
from paper_rows import COUNT, MAKERS, make_records
from paper_runs import (
    RECIPES,
    SHRUNK,
    ask_for_sets,
    leaves,
    overrides,
    page,
    path_of,
    read,
    shown,
    shrink,
    working_place,
)

from data_recipes.hub.build import hub_sets
from embedtrain.artifacts import read_json
from embedtrain.config.check import check_run
from embedtrain.config.load import resolved
from embedtrain.config.mining import Select
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.data.counts import count_rows
from embedtrain.model.load import load_encoder
from embedtrain.templates import validate_template

TEXTS = ["How do I list the files in a folder?", "The ls command lists files and folders."]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tiny models are kept."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of all tests here."""
    with working_place(tmp_path_factory.mktemp("place")) as folder:
        yield folder


# --- the files and their pages ------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_file_says_what_is_whose(recipe: str) -> None:
    text = path_of(recipe).read_text(encoding="utf-8")
    head = text[: text.index("\nname:")]
    assert head.startswith("# not run\n")
    for who in ("# Published, ", "# Second hand", "# Ours, where the paper says nothing that we know of."):
        assert who in head, who
    assert f"docs/recipes/{recipe}.md" in head.replace("\n# ", " ")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_page_replaces_every_stand_in(recipe: str, place: Path) -> None:
    """Its run names a built set for each source, and what it names is what its commands build."""
    built, sets = ask_for_sets(recipe)
    replaced = dict(change.split("=", 1) for change in sets)
    asked = read(recipe)
    assert set(replaced) == {f"sources.{name}.rows" for name in asked.sources}
    assert {source.rows.split("/")[0] for source in asked.sources.values()} == {"rows"}
    assert built == set(replaced.values())
    for folder in built:
        assert count_rows(folder) >= COUNT, folder
        assert "This build" in (place / folder / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_page_tells_the_sizes_and_what_is_not_measured(recipe: str) -> None:
    text = page(recipe)
    for head in ("What it does not say, and what we chose", "Data", "Run it", "Cost", "Small size, measured"):
        assert f"\n## {head}\n" in text, head
    assert "Not measured" in text
    assert any(
        words[0] == f"configs/recipes/{recipe}/paper.yaml" for words in shown(recipe, "embedtrain plan")
    )


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_records_have_the_columns_of_the_card(name: str) -> None:
    records, hub = list(make_records(name)), hub_sets()[name]
    assert len(records) >= COUNT
    assert {frozenset(record) for record in records} == {frozenset(hub.columns.names)}
    assert pa.Table.from_pylist(records, schema=hub.columns).num_rows == len(records)
    assert hub.schema_from


def test_the_papers_figures_are_in_the_files() -> None:
    for recipe in ("kalm_v2", "kalm_v2_5"):
        run = read(recipe)
        tuned = [stage for stage in run.stages if isinstance(stage, Train) and stage.rows]
        (chosen,) = (stage for stage in run.stages if isinstance(stage, Select))
        assert (chosen.first_rank, chosen.last_rank, chosen.require_positive_in_top) == (50, 100, 50)
        assert (chosen.num_negatives, chosen.rules) == (7, ())
        for stage in tuned:
            view = stage.objective.matryoshka
            assert view is not None
            assert view.dims == (896, 512, 256, 128, 64)
            assert view.weights == (1.0, 0.3, 0.2, 0.1, 0.1)
            assert not view.normalize_weights
            contrast = stage.objective.terms[-1]
            assert contrast.kind == "infonce"
            assert contrast.focal is not None
            assert (contrast.focal.gamma, contrast.masks) == (0.5, ())
            assert [mixing.kind for mixing in contrast.mixing] == ["pair", "list"]
        symmetric = {name for name, source in run.sources.items() if source.symmetric}
        assert symmetric == {"duplicates", "entailment"}
    main = tuned[-1].objective.terms[0]
    assert (main.kind, main.teacher, main.teacher_temperature, main.student_temperature) == (
        "distill_kl", "vectors", 0.05, 0.05,
    )  # fmt: skip
    assert tuned[-1].teacher is not None
    assert tuned[-1].teacher.model == "Qwen/Qwen3-Embedding-8B"


def test_the_figures_of_anna_are_in_its_file() -> None:
    run = read("anna")
    assert run.base.model == "mistralai/Mistral-7B-v0.1"
    stages = {stage.name: stage for stage in run.stages}
    assert list(stages)[:5] == ["sts", "mined", "scored", "negatives", "retrieval"]
    mined, chosen = stages["mined"], stages["negatives"]
    assert [judge.kind for judge in mined.judges] == ["bm25", "model"]
    assert (mined.fusion.kind, mined.fusion.k) == ("rrf", 60)
    assert stages["scored"].teachers[0].kind == "cross_encoder"
    assert [(rule.kind, rule.fraction) for rule in chosen.rules] == [("adaptive", 0.95)]
    assert stages["retrieval"].from_ == "sts"
    assert {stages[name].tuning for name in ("sts", "retrieval")} == {"lora"}
    for name in stages["retrieval"].sources:
        few = run.sources[name].few_shot
        assert (few.min_examples, few.max_examples) == (0, 5)
    assert all(run.sources[name].symmetric for name in stages["sts"].sources)


def test_the_page_shows_another_loss_for_anna() -> None:
    """Its stages take the place of those of their names, and nothing is wrong with the run."""
    (block,) = re.findall(r"^```yaml title=\"stages\"\n(.*?)^```$", page("anna"), re.MULTILINE | re.DOTALL)
    others = {stage["name"]: stage for stage in yaml.safe_load(block.replace("1e-4", "1.0e-4"))}
    run = resolved(read("anna"))
    run["stages"] = [others.get(stage["name"], stage) for stage in run["stages"]]
    assert {"scored", "negatives", "retrieval"} == set(others)
    other = Run.model_validate(run)
    assert not check_run(other, "anna.md", count_rows=count_rows, validate_template=validate_template)


# --- what is made small -------------------------------------------------------------------------------------


def changed(asked: Run, small: Run) -> set[str]:
    """Names of all single values in which two runs differ."""
    before, after = leaves(resolved(asked)), leaves(resolved(small))
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_only_models_and_length_are_changed(models: Path) -> None:
    used = set()
    for recipe in RECIPES:
        asked = read(recipe)
        small = shrink(asked, models)
        names = changed(asked, small)
        patterns = {name: [one for one in SHRUNK if fnmatchcase(name, one)] for name in names}
        assert [name for name, found in patterns.items() if not found] == []
        used |= {one for found in patterns.values() for one in found}
        assert not check_run(small, recipe, count_rows=count_rows, validate_template=validate_template)
        assert read_json(Path(small.base.model) / "config.json")["num_hidden_layers"] == LAYERS
    assert used == set(SHRUNK)
    assert {path.relative_to(models).as_posix() for path in models.glob("*/*")} >= {
        *BASES, *EMBEDDERS, *RERANKERS,
    }  # fmt: skip


def test_another_change_would_be_found(models: Path) -> None:
    asked = read("kalm_v2")
    small = resolved(shrink(asked, models))
    small["stages"][2]["first_rank"] = 1
    names = changed(asked, Run.model_validate(small))
    assert [n for n in names if not any(fnmatchcase(n, one) for one in SHRUNK)] == [
        "stages.negatives.first_rank"
    ]


def test_annas_own_attention_is_three_switches(models: Path) -> None:
    """The loaded model proves its attention, and every text ends in the end token, cut or not."""
    (switches,) = (found for words in shown("anna", "embedtrain plan") if (found := overrides(words)))
    run = shrink(read("anna", switches), models)
    assert changed(shrink(read("anna"), models), run) == {
        "encoder.attention", "encoder.pooling", "encoder.append_eos",
    }  # fmt: skip
    encoder = load_encoder(run.base, run.encoder, run.text)
    assert (run.encoder.attention, run.encoder.pooling) == ("causal", "last_token")
    for text in TEXTS:
        assert encoder.tokenizer.encode(text).ids[-1] == encoder.tokenizer.token_to_id("</s>")
