"""The whole audit on real rows: its page, its JSON, its summary."""

import json
import re
from pathlib import Path

import pytest
from audited_rows import store_all

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Run
from embedtrain.data.audit.audit import AuditedSource, audit_stores
from embedtrain.data.audit.examined import Examined, examine
from embedtrain.data.audit.page import audit_page
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import store_rows
from embedtrain.stages.audit import audit_sources, name_paths

SHIPPED = Path(__file__).parents[1] / "rows"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_shipped_rows_are_audited_to_a_page_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [SHIPPED / name / "train.parquet" for name in ("bible", "pydoc")]
    audit = audit_sources(paths, [SHIPPED / "tests" / "bible"], tmp_path / "out", sample=600)
    printed = capsys.readouterr().out
    saved = json.loads((tmp_path / "out" / "audit.json").read_text())
    page = (tmp_path / "out" / "audit.html").read_text()
    assert saved["rows"] == audit.rows == 6500
    bible = saved["sources"]["bible"]
    assert bible["rows"] == 4000
    assert bible["faults"]["query_is_positive"] == 14
    assert len(bible["examples"]["query_is_positive"]) == 3
    assert bible["licence"]["stated"] == "Public domain, see LICENSE."
    assert bible["sampled"]["num_rows"] == saved["sources"]["pydoc"]["sampled"]["num_rows"] == 300
    assert bible["sampled"]["languages"]["positive"]["en"] > 290
    assert bible["labels"]["num_labels"] == 26
    assert sum(part["touched"] for part in saved["test"]) == 5
    for heading in (
        "Rows with a fault",
        "Words of a query",
        "Languages",
        "Test texts of which 10 words",
        "Licences",
    ):
        assert heading in printed
    assert page.count("<svg") == 3  # two of lengths, one of languages
    assert not re.search(r"(?:src|href)=\"(?!#)", page), "the page loads something"
    example = bible["examples"]["test_data"][0]
    assert example["shared"] in page
    assert len(example["shared"].split()) >= 8


def test_lengths_of_a_run_are_those_of_the_formatted_texts(tmp_path: Path) -> None:
    made = [Row(f"query {i}", (f"a document of some length {i}",), instruction="Find it") for i in range(9)]
    write_rows(tmp_path / "rows.parquet", made)
    run = Run.model_validate(
        {
            "name": "r",
            "base": {"model": "none"},
            "text": {"query": "{instruction}: {text}", "max_query_tokens": 3},
            "sources": {"s": {"rows": str(tmp_path / "rows.parquet")}},
            "stages": [{"name": "e", "kind": "export", "from": "base"}],
        }
    )
    from embedtrain.stages.audit import run_sources

    audit = audit_stores(run_sources(run), count_tokens=lambda texts: [len(t.split()) for t in texts])
    query = audit.sources["s"].sampled.lengths["query"]
    assert (query.percentiles[50], query.limit, query.cut_fraction) == (4, 3, 1.0)
    assert audit.sources["s"].sampled.lengths["positive"].percentiles[50] == 6
    assert "upright mark is the limit" in audit_page(audit)


def test_repeats_between_sources_are_counted(tmp_path: Path) -> None:
    one = [Row(f"query {i}", (f"answer {i}",), label="x" if i else "y") for i in range(4)]
    two = [Row("QUERY 2", ("Answer 2",)), Row("a new", ("one",)), Row("a new", ("one",))]
    stores = store_all([one, two], tmp_path)
    audit = audit_stores({name: AuditedSource(tmp_path / name, store) for name, store in stores.items()})
    assert audit.between == {("s1", "s0", "exact_duplicates"): 1, ("s1", "s1", "exact_duplicates"): 1}
    assert audit.sources["s0"].labels.top == {"x": 3, "y": 1}
    assert audit.sources["s1"].labels.unlabelled_rows == 3
    assert audit.sources["s1"].examples["exact_duplicates"][0].where == "s0, row 3"
    page = audit_page(audit)
    assert "Repeated between sources" in page


def test_markup_in_rows_is_shown_as_text(tmp_path: Path) -> None:
    made = [Row("<b>bold</b>", ("<b>BOLD</b>", "x"))]
    audit = audit_stores({"s<i>": AuditedSource(tmp_path, store_rows(made, tmp_path / "s"))})
    page = audit_page(audit)
    assert "<b>bold" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;bold" in page


def test_sources_are_named_after_their_files() -> None:
    paths = [
        Path("rows/a/train.parquet"),
        Path("rows/b/train.parquet"),
        Path("c.jsonl.gz"),
        Path("x/a.jsonl"),
    ]
    assert name_paths(paths[:3]) == ["a", "b", "c"]
    assert name_paths(paths) == ["rows/a/train.parquet", "b", "c", "x/a.jsonl"]
    with pytest.raises(UserError, match=re.escape("c.jsonl: named twice")):
        name_paths([Path("c.jsonl"), Path("c.jsonl")])


def test_places_of_rows(tmp_path: Path) -> None:
    examined: Examined = examine(store_all([[Row("a", ("b",))] * 2, [Row("c", ("d",))]], tmp_path))
    assert [examined.place(row)[::2] for row in range(3)] == [("s0", 0), ("s0", 1), ("s1", 0)]
