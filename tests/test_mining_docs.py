"""docs/mining.md: its stages are a valid run, its tables are those of the code, and its commands work."""

import json
import re
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from exports import tiny_export
from pydantic import BaseModel
from test_model_cross_encoder import save_reranker
from tiny_models import TEXTS, save_tiny
from typer.testing import CliRunner

from embedtrain.api import load_run, run
from embedtrain.artifacts import read_json
from embedtrain.cli import app
from embedtrain.config.check import read_config
from embedtrain.config.errors import ConfigError
from embedtrain.config.mining import Mine, Score, Select
from embedtrain.config.retrievers import EndpointJudge, Retriever, Teacher
from embedtrain.config.rules import AnyRule
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row, write_rows
from embedtrain.mining.negatives import Reason
from embedtrain.mining.report.agreement import TOP
from embedtrain.mining.report.source import AGREEMENT_ROWS
from embedtrain.templates import validate_template

PAGE = (Path(__file__).parent.parent / "docs" / "mining.md").read_text(encoding="utf-8")
STAGES = re.findall(r"^```yaml title=\"stages\"\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^embedtrain (.*)$", PAGE, re.MULTILINE)
START = """
name: docs
base: {model: base}
text: {max_query_tokens: 16, max_document_tokens: 32}
sources: {pairs: {rows: pairs.parquet}}
stages:
- name: first
  kind: train
  objective: {terms: [{kind: infonce, temperature: 0.03}]}
  batch_size: 8
  steps: 2
  lr: 1e-3
"""


def kinds_of(union: Any) -> set[str]:
    """The kinds of a tagged union of config classes."""
    classes: list[type[BaseModel]] = list(typing.get_args(typing.get_args(union)[0]))
    return {str(typing.get_args(one.model_fields["kind"].annotation)[0]) for one in classes}


def table(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading this is."""
    lines = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named(cell: str) -> str:
    """The first name in a cell."""
    found = re.match(r"`(\w+)`", cell)
    return found[1] if found else cell


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page's stages and commands name: rows, a base, an embedder and a reranker."""
    folder = tmp_path_factory.mktemp("docs")
    save_tiny("llama", folder / "base")
    save_reranker(folder / "models" / "my_reranker")
    (folder / "my_reranker").symlink_to(folder / "models" / "my_reranker")
    _, embedder = tiny_export(folder / "embedder")
    (folder / "my_embedder").symlink_to(embedder)
    words = sorted(set(" ".join(TEXTS).split()))
    rng = np.random.default_rng(0)
    rows = [
        Row(f"{' '.join(rng.choice(words, 4))} {n}", (f"{' '.join(rng.choice(words, 9))} {n}",))
        for n in range(80)
    ]
    write_rows(folder / "pairs.parquet", rows)
    lines = [json.dumps({"query": row.query, "pos": row.positives}) for row in rows]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_run(place: Path, stages: str) -> Path:
    path = place / "run.yaml"
    path.write_text(START + stages, encoding="utf-8")
    return path


def checked(path: Path) -> Run:
    """The run, once nothing is wrong with it."""
    return read_config(path, count_rows=count_rows, validate_template=validate_template)[0]


@pytest.mark.parametrize("stages", STAGES)
def test_the_stages_are_a_valid_run(place: Path, monkeypatch: pytest.MonkeyPatch, stages: str) -> None:
    monkeypatch.chdir(place)
    read = checked(write_run(place, stages))
    assert len(read.stages) == 1 + len(yaml.safe_load(stages))
    assert {type(stage) for stage in read.stages[1:]} <= {Mine, Score, Select, Train}


def test_a_wrong_stage_would_be_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert len(STAGES) == 6
    with pytest.raises(ConfigError, match="no column 'reranked'; did you mean 'reranker'"):
        checked(write_run(place, STAGES[0].replace("soft_labels: reranker", "soft_labels: reranked")))


def test_the_tables_name_every_kind() -> None:
    rules = table("`kind` | stays if")
    assert {named(line[0]) for line in rules[1:]} == kinds_of(AnyRule)
    retrievers = {named(line[0]) for line in table("retriever `kind`")}
    assert retrievers == kinds_of(Retriever)
    assert retrievers | {named(line[0]) for line in table("teacher `kind`")} == kinds_of(Teacher)
    assert {named(line[0]) for line in table("`protocol`")} == set(
        typing.get_args(EndpointJudge.model_fields["protocol"].annotation)
    )
    reasons = [named(line[0]) for line in table("reason")]
    assert {name for name in reasons if name != "a rule's name"} == {
        reason.name.lower() for reason in Reason if reason != Reason.ABSENT
    }


def test_the_rules_have_the_defaults_of_the_page() -> None:
    classes = {
        str(typing.get_args(one.model_fields["kind"].annotation)[0]): one
        for one in typing.get_args(typing.get_args(AnyRule)[0])
    }
    told = 0
    for line in table("`kind` | stays if")[1:]:
        for key, value in re.findall(r"`(\w+): ([\d.]+)`", line[2]):
            assert classes[named(line[0])].model_fields[key].default == float(value)
            told += 1
    assert told == 5
    for key, value in (("k", 60),):
        assert f"{{kind: rrf, {key}: {value}}}" in PAGE
        assert (
            Mine.model_validate({"name": "m", "kind": "mine", "from": "base"}).fusion.model_dump()[key]
            == value
        )


def test_what_the_page_says_of_the_report_holds() -> None:
    assert f"over at most {AGREEMENT_ROWS:,} rows" in PAGE
    assert TOP == 10
    assert "Jaccard of their ten best candidates" in PAGE


@pytest.mark.slow
def test_the_first_stages_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    folder = run(load_run(write_run(place, STAGES[0])))
    (chosen,) = folder.glob("chosen-*")
    reasons = read_json(chosen / "reasons.json")["pairs"]
    assert set(reasons["scores"]) == {"first", "bm25", "reranker"}
    assert reasons["candidates"]["kept"] > 0
    assert (chosen / "mining.html").exists()


@pytest.mark.slow
def test_the_commands_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert [command.split()[0] for command in COMMANDS] == ["mine", "score", "select"]
    for command in COMMANDS:
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (place / "selected.jsonl").read_text().splitlines()]
    assert len(lines) == 80
    assert any(line["neg"] for line in lines)
    for line in lines:
        assert len(line["pos_scores"]) == len(line["pos"])
        assert len(line.get("neg_scores", [])) == len(line["neg"])
