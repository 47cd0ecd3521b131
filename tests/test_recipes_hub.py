"""Published sets: records of their schema become rows, cards tell all, and the list shows every set."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_cases import CASES

from data_recipes.hub.build import build_hub, hub_sets
from data_recipes.hub.card import card_text, short_overlap
from data_recipes.hub.fineweb import make_row
from data_recipes.registry import built, local_recipes
from embedtrain.config.errors import UserError
from embedtrain.data.audit.licences import read_licence
from embedtrain.data.formats.record import Record
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows

ROOT = Path(__file__).parent.parent
SETS = hub_sets()


def write_fixture(name: str, folder: Path) -> Path:
    """The records of a case in a file of the set's own kind; parquet has the schema that its card states."""
    file, records, _ = CASES[name]
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pq.write_table(pa.Table.from_pylist(records, schema=SETS[name].columns), path)
    return path


def test_every_set_has_a_case() -> None:
    assert list(SETS) == sorted(CASES)
    for name, (_, records, _) in CASES.items():
        assert [set(record) for record in records] == [set(SETS[name].columns.names)] * len(records)


@pytest.mark.parametrize("name", sorted(CASES))
def test_records_of_its_schema_become_rows(name: str, tmp_path: Path) -> None:
    path, expected = write_fixture(name, tmp_path / "raw"), CASES[name][2]
    build_hub(SETS[name], ["--files", str(path), "--out", str(tmp_path / "built")])
    named = "quora_duplicates" if name == "echo" else name
    rows = list(open_rows(tmp_path / "built"))
    assert [(r.query, r.positives, r.negatives) for r in rows] == [
        (r.query, r.positives, r.negatives) for r in expected
    ]
    for row, wanted in zip(rows, expected, strict=True):
        assert (row.instruction, row.task, row.score) == (wanted.instruction, wanted.task, wanted.score)
        assert row.source == (wanted.source or named)
    card = (tmp_path / "built" / "card.md").read_text()
    assert f"{len(expected)} rows from {path}" in card


def test_what_is_wrong_is_told_all_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"query": "a", "answer": 3}\n{"question": "b"}\n{"query": "c", "answer": "d"}\n')
    with pytest.raises(UserError) as error:
        build_hub(SETS["amazon-qa"], ["--files", str(path), "--out", str(tmp_path / "built")])
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:1", f"{path}:2"]
    assert "'positives[0]': found 3" in lines[0]
    assert not (tmp_path / "built").exists()


def test_another_config_names_folder_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fixture("miracl", tmp_path / "raw")
    monkeypatch.chdir(tmp_path)
    build_hub(SETS["miracl"], ["--files", str(path), "--config", "de"])
    rows = open_rows(tmp_path / "build/rows/miracl-de")
    assert [row.source for row in rows] == ["miracl-de"]
    assert built("miracl-de", tmp_path) == (1, "built")
    assert built("miracl", tmp_path) == (None, "not built")
    licence = read_licence(tmp_path / "build/rows/miracl-de")
    assert licence.stated is not None
    assert licence.stated.startswith("Apache-2.0, CC BY-SA.")
    assert licence.mteb_overlap is not None
    assert "MIRACLRetrieval" in licence.mteb_overlap


def test_a_limit_stops_early(tmp_path: Path) -> None:
    path = write_fixture("kalm-finetuning", tmp_path)
    build_hub(
        SETS["kalm-finetuning"], ["--files", str(path), "--out", str(tmp_path / "built"), "--rows", "2"]
    )
    assert len(open_rows(tmp_path / "built")) == 2


@pytest.mark.parametrize("name", ["bge-full", "msmarco", "miracl"])
def test_the_hub_is_asked_for_the_stated_revision(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    asked: dict[str, Any] = {}

    def load(*words: Any, **options: Any) -> Any:
        asked.update(options, words=words)
        rows = datasets.Dataset.from_list(CASES[name][1]).to_iterable_dataset()
        return {"eli5": rows} if options["split"] is None else rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    hub = SETS[name]
    build_hub(hub, ["--out", str(tmp_path / "built")])
    assert len(open_rows(tmp_path / "built")) == len(CASES[name][2])
    assert asked["streaming"] is True
    if hub.files:
        assert asked["data_files"] == {"train": [f"hf://datasets/{hub.hub_id}@main/train.jsonl.gz"]}
    else:
        assert asked["words"] == (hub.hub_id, hub.config)
        assert (asked["revision"], asked["split"]) == (hub.revision, hub.split)


def test_what_the_hub_refuses_and_what_is_not_there_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")

    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match="sentence-transformers/stsb: cannot be read: no route"):
        build_hub(SETS["stsb"], ["--out", str(tmp_path / "built")])
    with pytest.raises(UserError, match=r"echo: not on the hub\. Linked at .* --files"):
        build_hub(SETS["echo"], ["--out", str(tmp_path / "built")])
    assert not (tmp_path / "built").exists()


def test_a_page_starts_with_a_query_of_four_words() -> None:
    text = "Home.\nKnots. A rope is tied by hand. Then it holds."
    assert make_row(Record("x", {"text": text})) == Row(
        "Home. Knots. A rope is tied by hand.", ("Then it holds.",), task="title_body"
    )


def test_echo_refuses_a_file_that_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"query": "a", "positive": "b", "negative": "c"}\n')
    with pytest.raises(UserError, match=r"other.jsonl:1: the file is 'other', expected one of allnli, "):
        build_hub(SETS["echo"], ["--files", str(tmp_path), "--out", str(tmp_path / "built")])


@pytest.mark.parametrize("name", sorted(SETS))
def test_cards_tell_origin_licence_counts_schema_and_overlap(name: str) -> None:
    hub, card = SETS[name], card_text(SETS[name])
    heads = ["Origin", "Licence", "Counts", "Schema", "How rows are made", "MTEB overlap"]
    assert re.findall("^## (.+)$", card, re.MULTILINE) == heads
    assert hub.by_hand or f"https://huggingface.co/datasets/{hub.hub_id} " in card
    assert all(f"`{column}`" in card for column in hub.columns.names)
    assert "not downloaded" in card
    assert (hub.num_rows is None) == (not hub.num_rows_from)


def test_overlaps_name_tasks_that_mteb_has() -> None:
    found = find_spec("mteb")
    if found is None or not found.submodule_search_locations:
        pytest.skip("mteb is not installed")
    tasks = Path(found.submodule_search_locations[0]) / "tasks"
    text = "\n".join(path.read_text(encoding="utf-8") for path in tasks.rglob("*.py"))
    known = set(re.findall(r'\bname="([^"]+)"', text))
    assert len(known) > 500
    assert {task for hub in SETS.values() for task in hub.overlap} - known == set()
    assert short_overlap(()) == "none known"
    assert short_overlap(("NQ", "FEVER")) == "NQ and 1 more"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_recipes", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_list_shows_every_set_and_a_card_can_be_read() -> None:
    shown = run("list").stdout
    names = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert set(SETS) | set(local_recipes()) <= names
    assert not set(SETS) & set(local_recipes())
    assert re.search(r"debian +retrieval +15,992 +shipped", shown)
    assert re.search(r"all-nli +nli +942,069 +sentence-transformers/all-nli", shown)
    assert run("card", "fineweb").stdout == card_text(SETS["fineweb"])
    assert run("card", "debian").stdout == (ROOT / "rows/debian/card.md").read_text()


def test_mistakes_end_in_one_line_and_exit_2() -> None:
    for words in (("build", "debiann"), ("card", "debiann")):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("'debiann': no ")
        assert "did you mean 'debian'?" in done.stderr
    assert run("list", "more").returncode == 2


def test_a_missing_library_is_named_with_its_extra() -> None:
    program = "import sys; sys.modules['rensa'] = None; sys.argv[1:] = ['list']\n"
    program += "from data_recipes.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "recipes need rensa, which is not installed: pip install 'embedtrain[recipes]'"
    )
