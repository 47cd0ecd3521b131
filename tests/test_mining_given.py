"""Given corpora: every kind of file, each text once, and faults with their places."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.data.store import write_store
from embedtrain.mining.given import Given, write_given


def write_lines(path: Path, *records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(folder: Path, *paths: Path) -> list[str]:
    write_given([str(path) for path in paths], folder / "given")
    given = Given(folder / "given")
    assert given.keys.tolist() == [text_key(text) for text in given.texts]
    return list(given.texts)


def test_lines_of_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two \none\n")
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("three\ntwo\n")
    assert read(tmp_path, tmp_path / "a.txt", tmp_path / "b.txt.gz") == ["one", "two", "three"]


def test_records_with_and_without_a_title(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        {"_id": "1", "title": "Ships", "text": "float"},
        {"_id": "2", "title": "", "text": "alone"},
        {"passage": "passed"},
        {"text": "  "},
    )
    pq.write_table(pa.table({"text": ["from parquet"], "title": ["T"]}), tmp_path / "b.parquet")
    assert read(tmp_path, path, tmp_path / "b.parquet") == [
        "Ships float",
        "alone",
        "passed",
        "T from parquet",
    ]


def test_a_beir_folder_gives_its_corpus_alone(tmp_path: Path) -> None:
    write_lines(tmp_path / "beir" / "corpus.jsonl", {"_id": "1", "title": "A", "text": "b"})
    write_lines(tmp_path / "beir" / "queries.jsonl", {"_id": "1", "text": "asked"})
    assert read(tmp_path, tmp_path / "beir") == ["A b"]


def test_rows_give_positives_and_negatives(tmp_path: Path) -> None:
    rows = [Row("asked", ("right",), ("wrong", "bad")), Row("again", ("right", "good"))]
    write_rows(tmp_path / "rows.parquet", rows)
    write_store(tmp_path / "store", rows)
    for path in (tmp_path / "rows.parquet", tmp_path / "store"):
        assert read(tmp_path, path) == ["right", "wrong", "bad", "good"]


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "many" / "b.jsonl", {"text": "second"})
    (tmp_path / "many" / "a.txt").write_text("first\n")
    (tmp_path / "many" / "notes.md").write_text("not read\n")
    assert read(tmp_path, tmp_path / "many") == ["first", "second"]


def test_faults_are_told_with_their_places(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"text": "good"}, {"body": "bad"}, {"text": 3})
    with pytest.raises(UserError) as caught:
        read(tmp_path, path)
    first, second = str(caught.value).splitlines()
    assert first == f"{path}:2: none of text, passage, contents, document has a value; found 'body'"
    assert second.startswith(f"{path}:3: 'text")


def test_a_folder_without_documents(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file of documents in this folder"):
        read(tmp_path, tmp_path / "empty")
