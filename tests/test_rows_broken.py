"""Broken rows: every fault is told, with file, line or row, column, found and expected; nothing is left."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.artifacts import cache_folder
from embedtrain.config.errors import UserError
from embedtrain.data.counts import count_rows
from embedtrain.data.problems import LIMIT, Problems
from embedtrain.data.rows import Row, read_rows, text_key, write_rows
from embedtrain.data.store import open_rows, write_store

GOOD = {"query": "q", "positives": ["d"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    return cache_folder("rows")


def told(read: Callable[[Path], object], path: Path) -> list[str]:
    """The lines of the error that reading gives, each without the file's folder; no store may be left."""
    with pytest.raises(UserError) as caught:
        read(path)
    assert not [folder for folder in cache_folder("rows").glob("*") if folder.is_dir()]
    return str(caught.value).replace(f"{path.parent}/", "").split("\n")


BOTH = pytest.mark.parametrize("read", [read_rows, open_rows])


@BOTH
def test_all_lines_with_faults_are_told(tmp_path: Path, read: Callable) -> None:
    lines = [
        json.dumps(GOOD),
        '{"query": "q", "positives"',
        json.dumps({"positives": []}),
        json.dumps(GOOD | {"positives": [1, None], "score": "high"}),
        json.dumps(GOOD | {"positives": []}),
        json.dumps(GOOD | {"negative_scores": [1, 2], "negatives": ["n"]}),
        json.dumps(GOOD),
    ]
    (tmp_path / "rows.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"query": "\xff"}\n')
    assert told(read, tmp_path / "rows.jsonl") == [
        "rows.jsonl:2: broken JSON at column 27: Expecting ':' delimiter",
        "rows.jsonl:3: 'query' is missing; expected text",
        "rows.jsonl:4: 'positives[0]': found 1 (number), expected a list of texts",
        "rows.jsonl:4: 'positives[1]': found nothing, expected a list of texts",
        "rows.jsonl:4: 'score': found 'high' (text), expected a finite number",
        "rows.jsonl:5: 'positives': found an empty list, expected at least one text",
        "rows.jsonl:6: 'negative_scores': found 2 scores for 1 negatives",
        "rows.jsonl:8: not UTF-8 text (byte 12 of the line)",
    ]


@BOTH
def test_beyond_a_limit_faults_are_counted(tmp_path: Path, read: Callable) -> None:
    (tmp_path / "rows.jsonl").write_text("[]\n" * 5 + f"{json.dumps(GOOD)}\n" * 3 + "{\n" * 1500)
    lines = told(read, tmp_path / "rows.jsonl")
    assert len(lines) == LIMIT + 1
    assert lines[4:6] == [
        "rows.jsonl:5: found a list, expected a JSON object with keys",
        "rows.jsonl:9: broken JSON at column 2: Expecting property name enclosed in double quotes",
    ]
    assert lines[-1] == "… and 1,485 more"


@BOTH
def test_a_gzip_file_that_was_cut_off(tmp_path: Path, read: Callable) -> None:
    text = "".join(json.dumps(GOOD | {"query": f"q {n}"}) + "\n" for n in range(1000)) + "{"
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode())[:-100])
    first, *others = told(read, path)
    assert first.startswith("rows.jsonl.gz:")
    assert int(first.split(":")[1]) > 500  # the line where it ends
    assert first.endswith(
        "broken gzip file: Compressed file ended before the end-of-stream marker was reached"
    )
    assert others == []


@BOTH
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_files_without_rows(tmp_path: Path, read: Callable, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"query": pa.array([], pa.string()), "positives": [[""]][:0]}), path)
    else:
        path.write_bytes(gzip.compress(b"\n") if name.endswith("gz") else b"")
    assert told(read, path) == [f"{name}: no rows; expected at least one"]


@pytest.mark.parametrize("read", [read_rows, open_rows, count_rows])
def test_parquet_columns_of_another_type_are_told_at_once(tmp_path: Path, read: Callable) -> None:
    table = {"query": [1, 2], "negatives": ["a", "b"], "score": ["x", "y"], "pos": [["d"]] * 2}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    assert told(read, tmp_path / "rows.parquet") == [
        "rows.parquet: column 'query': found int64, expected text",
        "rows.parquet: column 'negatives': found string, expected a list of texts",
        "rows.parquet: column 'score': found string, expected a finite number",
        "rows.parquet: column: 'pos': unknown key; did you mean 'positives'?",
    ]
    pq.write_table(pa.table({"query": ["q"]}), tmp_path / "rows.parquet")
    assert told(read, tmp_path / "rows.parquet") == [
        "rows.parquet: column 'positives': is missing; expected a list of texts"
    ]


@BOTH
def test_parquet_rows_are_told_by_number(tmp_path: Path, read: Callable) -> None:
    table = {
        "query": ["q", None, "q", " ", "q", "q"],
        "positives": [["d"], ["d"], [], ["d"], ["d", None], ["d"]],
        "positive_scores": [[1.0], None, None, None, None, [1.0, 2.0]],
        "label": ["a", None, None, None, None, None],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet", row_group_size=2)
    assert told(read, tmp_path / "rows.parquet") == [
        "rows.parquet: row 2: 'query' is missing; expected text",
        "rows.parquet: row 3: 'positives': found an empty list, expected at least one text",
        "rows.parquet: row 4: 'query': found blank text, expected a query",
        "rows.parquet: row 5: 'positives[1]': found nothing, expected a list of texts",
        "rows.parquet: row 6: 'positive_scores': found 2 scores for 1 positives",
    ]


@BOTH
def test_text_in_parquet_that_is_not_utf8(tmp_path: Path, read: Callable) -> None:
    broken = pa.array([b"q", b"q", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"query": broken, "positives": [["d"]] * 3}), tmp_path / "rows.parquet")
    assert told(read, tmp_path / "rows.parquet") == ["rows.parquet: row 3: 'query': not UTF-8 text"]


@BOTH
def test_a_damaged_row_group_is_named_with_its_column(tmp_path: Path, read: Callable) -> None:
    rows = [Row(f"query {n}", (f"document {n * n}",)) for n in range(300)]
    path = write_rows(tmp_path / "rows.parquet", rows)
    pq.write_table(pq.read_table(path), path, row_group_size=100, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    (line,) = told(read, path)
    assert line.startswith("rows.parquet: row group 2: column 'positives': cannot be read: ")
    path.write_bytes(data[: len(data) // 2])
    (line,) = told(read, path)
    assert line.startswith("rows.parquet: not a parquet file: ")


# --- folders of ids -----------------------------------------------------------------------------------------


def write_folder(folder: Path, rows: dict[str, list], texts: list[str | None], **changed: list) -> Path:
    folder.mkdir()
    keys = [text_key(text or "") for text in texts]
    pq.write_table(
        pa.table({"key": keys, "text": pa.array(texts, pa.string())} | changed), folder / "texts.parquet"
    )
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    return folder


def test_a_sound_folder_written_by_hand_opens(tmp_path: Path) -> None:
    rows = {
        "query": [0, 1],
        "positives": [[1], [2, 0]],
        "negatives": [[2], []],
        "negative_scores": [[0.5], None],
    }
    folder = write_folder(tmp_path / "rows", rows, ["a", "b", "c"])
    assert list(open_rows(folder)) == [Row("a", ("b",), ("c",), None, (0.5,)), Row("b", ("c", "a"))]


def test_ids_that_point_nowhere_and_rows_that_do_not_fit(tmp_path: Path) -> None:
    rows = {
        "query": [0, 3, None, 0, 0, 0, 0],
        "positives": [[1], [1], [1], [], [-1, 9], [1, 2], [1]],
        "negatives": [[2], None, [2], [2], [2], [2, 0], [2, 0]],
        "negative_scores": [[0.5], None, None, None, None, None, [1.0]],
        "positive_scores": [[float("inf")], None, None, None, None, [1.0, None], None],
        "score": [float("nan"), float("inf"), 1, 2, 3, 4, 5],
    }
    folder = write_folder(tmp_path / "rows", rows, ["a", "b", "c"])
    where = "expected 0 to 2, as texts.parquet has 3 texts"
    assert told(open_rows, folder) == [
        "rows/rows.parquet: row 1: 'positive_scores': found one that is no finite number",
        f"rows/rows.parquet: row 2: 'query': found text id 3, {where}",
        "rows/rows.parquet: row 2: 'score': found an infinite number, expected a finite one",
        f"rows/rows.parquet: row 3: 'query': found nothing, {where}",
        "rows/rows.parquet: row 4: 'positives': found an empty list, expected at least one text id",
        f"rows/rows.parquet: row 5: 'positives': found text id -1, {where}",
        f"rows/rows.parquet: row 5: 'positives': found text id 9, {where}",
        "rows/rows.parquet: row 6: 'negatives': one of them is also a positive of this row",
        "rows/rows.parquet: row 6: 'positive_scores': found one that is no finite number",
        "rows/rows.parquet: row 7: 'negative_scores': found 1 scores for 2 negatives",
    ]


def test_texts_that_stand_twice_are_blank_or_have_another_key(tmp_path: Path) -> None:
    texts = ["a", " ", "b", " a", "c", None]
    keys = [text_key(text or "") for text in texts]
    rows = {"query": [0], "positives": [[99]]}  # not told: ids cannot be judged before the texts are sound
    folder = write_folder(tmp_path / "rows", rows, texts, key=[*keys[:4], 7, keys[5]])
    assert told(open_rows, folder) == [
        "rows/texts.parquet: row 2: 'text': found blank text",
        "rows/texts.parquet: row 4: 'text': ' a' stands twice; expected each text once",
        f"rows/texts.parquet: row 5: 'key': found 7, expected {keys[4]}, the key of its text",
        "rows/texts.parquet: row 6: 'text': '' stands twice; expected each text once",
        "rows/texts.parquet: row 6: 'text': found blank text",
    ]


def test_folders_of_other_columns_versions_and_parts(tmp_path: Path) -> None:
    rows = {"query": [0], "positives": [[1]]}
    inline = write_folder(tmp_path / "inline", {"query": ["a"], "positives": [["b"]]}, ["a", "b"])
    assert told(open_rows, inline) == [
        "inline/rows.parquet: column 'query': found string, expected int64",
        "inline/rows.parquet: column 'positives': found list<element: string>, expected list<item: int64>",
    ]
    few = write_folder(tmp_path / "few", {"query": [0], "answers": [[1]]}, ["a", "b"])
    assert told(open_rows, few) == [
        "few/rows.parquet: column: 'answers': unknown; known: query, positives, negatives, positive_scores, "
        "negative_scores, score, label, task, instruction, source",
        "few/rows.parquet: column 'positives': is missing; expected list<item: int64>",
    ]
    newer = write_folder(tmp_path / "newer", rows, ["a", "b"])
    table = pq.read_table(newer / "rows.parquet").replace_schema_metadata({"embedtrain_rows": "3"})
    pq.write_table(table, newer / "rows.parquet")
    assert told(open_rows, newer) == [
        "newer/rows.parquet: rows of version 3; this embedtrain reads up to 2: upgrade it"
    ]
    (newer / "texts.parquet").unlink()
    for read in (open_rows, count_rows):
        assert told(read, newer) == [
            "newer: a folder without texts.parquet; expected a file of rows, or a folder that "
            "`embedtrain convert` wrote"
        ]


def test_a_file_of_a_folder_is_no_file_of_rows(tmp_path: Path) -> None:
    """Version 2 holds ids, which mean nothing without the texts beside them."""
    folder = write_store(tmp_path / "rows", [Row("q", ("d",))])
    assert told(read_rows, folder / "rows.parquet") == [
        "rows.parquet: holds ids of texts, not texts; give the folder that it is in"
    ]


def test_problems_keep_the_first_and_count_all() -> None:
    problems = Problems(limit=2)
    problems.require()
    assert not problems
    for line in range(1, 4):
        problems.add(f"file:{line}", "wrong")
    with pytest.raises(UserError) as caught:
        problems.require()
    assert str(caught.value) == "file:1: wrong\nfile:2: wrong\n… and 1 more"
    assert problems.count == 3
