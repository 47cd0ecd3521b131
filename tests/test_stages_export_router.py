"""The export stage with a model of documents: both folders, the proof, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from exports import QUERIES
from routers import TEACHER_TEXT, export_tiny
from sentence_transformers import SentenceTransformer
from tiny_models import TEXTS, save_tiny

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.model.st import open_sentence_transformer
from embedtrain.stages import evaluate, export
from embedtrain.stages.context import StageContext


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("teacher"), "bert", TEACHER_TEXT)


def context_of(
    folder: Path, stages: list[dict[str, object]], name: str, size: int = 32, **inputs: Path
) -> StageContext:
    """A run on a tiny decoder of `size` dims, at the stage of this name."""
    save_tiny("llama", folder / "base", hidden_size=size)
    write_rows(folder / "rows.parquet", [Row(f"{n} {TEXTS[0]}", (f"{n} {TEXTS[1]}",)) for n in range(9)])
    run = Run.model_validate(
        {
            "name": "leaf",
            "base": {"model": str(folder / "base")},
            "text": {"query": "find: {text}", "max_query_tokens": 20, "max_document_tokens": 20},
            "sources": {"faq": {"rows": str(folder / "rows.parquet")}},
            "stages": stages,
        }
    )
    (folder / name).mkdir()
    return StageContext(run, find_stage(run, name), Machine(), folder / name, inputs)


def export_stage(teacher: object, **documents: object) -> dict[str, object]:
    """An export of the base beside a model of documents."""
    paired = {"model": str(teacher)} | documents
    return {"name": "out", "kind": "export", "from": "base", "num_parity_texts": 6, "documents": paired}


def test_the_stage_writes_both_folders_and_proves_both(tmp_path: Path, teacher: Path) -> None:
    context = context_of(tmp_path, [export_stage(teacher)], "out")
    facts = export.run_stage(context)["parity"]
    assert facts["token_ids"] == facts["router"]["token_ids"] == "equal"
    assert facts["router"]["documents"] == str(teacher)
    assert facts["router"]["max_relative_difference"] <= 1e-5
    assert read_json(tmp_path / "out/parity.json") == facts
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model", "parity.json", "router"]
    both = SentenceTransformer(str(tmp_path / "out/router"), device="cpu")
    for texts, route, folder in (
        (QUERIES, "query", tmp_path / "out/model"),
        (QUERIES, "document", teacher),
    ):
        own = open_sentence_transformer(folder).encode(texts, side=route, normalize=False)
        found = both.encode_query(texts) if route == "query" else both.encode_document(texts)
        assert np.abs(own - found).max() <= 1e-5
    card = (tmp_path / "out/router/README.md").read_text()
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    assert f"queries are encoded by leaf out, documents by `{teacher}`" in card
    assert "| query | `'find: '` |" in card
    assert "| document | `'read this text: '` |" in card


def test_a_stage_that_was_stopped_starts_its_folders_again(tmp_path: Path, teacher: Path) -> None:
    context = context_of(tmp_path, [export_stage(teacher)], "out")
    (tmp_path / "out/router.partial").mkdir()
    (tmp_path / "out/router").mkdir()
    (tmp_path / "out/router/half").write_text("x")
    export.run_stage(context)
    assert not (tmp_path / "out/router/half").exists()
    assert not (tmp_path / "out/router.partial").exists()


def test_the_limit_of_documents_only_shrinks(tmp_path: Path, teacher: Path) -> None:
    for max_tokens, limit in ((15, 15), (99, 40)):
        place = tmp_path / str(max_tokens)
        export.run_stage(context_of(place, [export_stage(teacher, max_tokens=max_tokens)], "out"))
        model = SentenceTransformer(str(place / "out/router"), device="cpu")
        assert [model[0].sub_modules[side][0].max_seq_length for side in ("query", "document")] == [20, limit]


def test_models_of_unlike_dims_make_no_package(tmp_path: Path, teacher: Path) -> None:
    context = context_of(tmp_path, [export_stage(teacher)], "out", size=16)
    with pytest.raises(UserError) as error:
        export.run_stage(context)
    assert str(error.value) == (
        f"stage 'out': documents.model '{teacher}' gives vectors of 32 dims, the exported model of 16; "
        "queries and documents can only be compared in the same dims"
    )
    assert not (tmp_path / "out/router").exists()
    assert not (tmp_path / "out/parity.json").exists()


def test_a_teacher_that_is_no_encoder_or_a_package_is_refused(tmp_path: Path, teacher: Path) -> None:
    save_tiny("bert", tmp_path / "plain")
    context = context_of(tmp_path / "one", [export_stage(tmp_path / "plain")], "out")
    with pytest.raises(UserError, match=r"plain: no modules.json, so this is not a sentence-transformers"):
        export.run_stage(context)
    export.run_stage(context_of(tmp_path / "two", [export_stage(teacher)], "out"))
    package = tmp_path / "two/out/router"
    with pytest.raises(UserError, match=r"router is a Router itself; expected a single model for each side"):
        export.run_stage(context_of(tmp_path / "three", [export_stage(package)], "out"))
    assert not (tmp_path / "three/out/router").exists()


def test_an_evaluate_stage_measures_pairs_of_its_models(tmp_path: Path, teacher: Path) -> None:
    stages = [
        {"name": "out", "kind": "export", "from": "base"},
        {
            "name": "report",
            "kind": "evaluate",
            "models": ["out", str(teacher)],
            "data": [str(tmp_path / "asked.jsonl")],
            "pairs": [{"queries": "out", "documents": str(teacher)}],
            "bm25": False,
        },
    ]
    lines = [f'{{"query": "{n} files", "pos": ["{n} {text}"]}}\n' for n, text in enumerate(TEXTS)]
    (tmp_path / "asked.jsonl").write_text("".join(lines), encoding="utf-8")
    first = context_of(tmp_path, stages, "out")
    export.run_stage(first)
    (tmp_path / "report").mkdir()
    context = StageContext(
        first.run, find_stage(first.run, "report"), Machine(), tmp_path / "report", {"out": tmp_path / "out"}
    )
    evaluate.run_stage(context)
    report = read_json(tmp_path / "report/report.json")
    (pair,) = report["pairs"]
    assert (pair["queries"], pair["documents"]) == ("out", str(teacher))
    assert set(pair["kept"]) == {"student", "pair"}
    assert "Asymmetric search" in (tmp_path / "report/report.html").read_text()
    evaluate.run_stage(context)
    assert read_json(tmp_path / "report/report.json") == report
