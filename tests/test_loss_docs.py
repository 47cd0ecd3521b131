"""What docs/losses.md says: its examples are valid runs, and its tables name every setting."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from embedtrain.config import denominator, terms
from embedtrain.config.denominator import BlockSwitches, Focal, ListMixing, PairMixing
from embedtrain.config.fitting import objective_faults
from embedtrain.config.load import load_run
from embedtrain.config.stages import Train
from embedtrain.config.terms import AnyTerm
from embedtrain.config.types import Strict
from embedtrain.loss.spread import DIRECT
from embedtrain.loss.stream import STREAM_ABOVE

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "losses.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TERMS: tuple[type[AnyTerm], ...] = get_args(get_args(terms.Term)[0])
MASKS: tuple[type[Strict], ...] = get_args(get_args(denominator.Mask)[0])


def run_of(example: str) -> dict[str, Any]:
    """A run around an example: its sources, or keys of a train stage."""
    given = yaml.safe_load(example)
    sources = given.pop("sources", None) or {name: {"rows": "r.jsonl"} for name in sources_named(given)}
    train = {"kind": "train", "name": "finetune", "batch_size": 32, "steps": 10, "lr": 1e-4}
    rest = {"num_negatives": 7, "objective": {"terms": [{"kind": "infonce"}]}}
    return {
        "name": "shown",
        "base": {"model": "models/base"},
        "sources": sources,
        "stages": [train | rest | given],
    }


def sources_named(given: dict[str, Any]) -> list[str]:
    """Those that the terms name, or one."""
    named = [name for term in given["objective"]["terms"] for name in term.get("sources", [])]
    return named or ["faq"]


def faults_of(run: dict[str, Any], folder: Path) -> list[str]:
    """What is wrong with a run that the schema allows; raises ConfigError for what it does not."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    loaded = load_run(path)
    (stage,) = loaded.stages
    assert isinstance(stage, Train)
    return [fault.text for fault in objective_faults(loaded, stage, ("stages", 0), list(loaded.sources))]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_valid_run(example: str, tmp_path: Path) -> None:
    assert faults_of(run_of(example), tmp_path) == []


def test_a_wrong_example_is_found(tmp_path: Path) -> None:
    example = next(text for text in EXAMPLES if "teacher: vectors" in text)
    run = run_of(example)
    del run["stages"][0]["teacher"]
    assert faults_of(run, tmp_path)
    with pytest.raises(Exception, match="temprature: unknown key"):
        faults_of(run_of(EXAMPLES[0].replace("temperature", "temprature")), tmp_path)


def test_examples_show_every_part() -> None:
    assert len(EXAMPLES) >= 7
    for word in ("blocks:", "masks:", "focal:", "mixing:", "teacher:", "sources:", "initial:", "matryoshka:"):
        assert any(word in example for example in EXAMPLES), word


def row(kind: str) -> str:
    """The table row that starts with a kind."""
    rows = re.findall(rf"^\| `{kind}` \|.*$", PAGE, re.MULTILINE)
    assert len(rows) == 1, f"{len(rows)} rows of {kind}"
    return rows[0]


def own_settings(kind: type[Strict], without: type[Strict] = Strict) -> set[str]:
    return set(kind.model_fields) - set(without.model_fields) - {"kind"}


def kind_of(of: type[Strict]) -> str:
    (kind,) = get_args(of.model_fields["kind"].annotation)
    return str(kind)


@pytest.mark.parametrize("term", TERMS, ids=kind_of)
def test_a_terms_row_names_its_settings(term: type[AnyTerm]) -> None:
    text = row(kind_of(term)).replace("those of distill_kl", row("distill_kl"))
    assert {name for name in own_settings(term, AnyTerm) if f"`{name}`" not in text} == set()
    assert "](https://" in row(kind_of(term)), "a row cites its source"


@pytest.mark.parametrize("mask", MASKS, ids=kind_of)
def test_a_masks_row_names_its_settings(mask: type[Strict]) -> None:
    assert {name for name in own_settings(mask) if f"`{name}`" not in row(kind_of(mask))} == set()


@pytest.mark.parametrize("part", [BlockSwitches, Focal, PairMixing, ListMixing, AnyTerm])
def test_the_page_names_all_other_settings(part: type[Strict]) -> None:
    told = set(re.findall(r"`(\w+)[`:]", PAGE))
    assert own_settings(part) - told == set()


def test_figures_are_the_codes() -> None:
    assert f"Above {STREAM_ABOVE:,} scores" in PAGE
    assert f"up to {DIRECT:,} texts" in PAGE
