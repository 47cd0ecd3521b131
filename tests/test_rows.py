"""Rows: what is read is what was written, and every fault is named with its place."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row, read_rows, text_key, write_rows

FULL = Row(
    query="what is apt",
    positives=("a package manager", "the command-line front end of dpkg"),
    negatives=("a flat",),
    positive_scores=(0.9, 1.0),
    negative_scores=(-0.25,),
    score=4.5,
    label="admin",
    instruction="Answer the question",
    source="debian",
)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.strip())
rows = st.builds(
    Row,
    query=words,
    positives=st.lists(words, min_size=1, max_size=3).map(tuple),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    label=st.none() | st.text("ab", max_size=2),
)


def as_record(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


def write_jsonl(path: Path, *records: object) -> Path:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    written = [FULL, Row("only a query", ("and its answer",))]
    path = tmp_path / name
    if name.endswith("parquet"):
        write_rows(path, written)
    else:
        write_jsonl(path, *map(as_record, written))
    assert read_rows(path) == written
    assert count_rows(path) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, min_size=1, max_size=5))
def test_parquet_keeps_any_rows(tmp_path_factory: pytest.TempPathFactory, written: list[Row]) -> None:
    path = write_rows(tmp_path_factory.mktemp("rows") / "rows.parquet", written)
    assert read_rows(path) == written


def test_equal_rows_give_equal_bytes_and_a_version(tmp_path: Path) -> None:
    first, second = (write_rows(tmp_path / name, [FULL] * 50) for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()
    assert pq.ParquetFile(first).schema_arrow.metadata == {b"embedtrain_rows": b"1"}
    plain = write_rows(tmp_path / "c.parquet", [Row("q", ("d",))])
    assert pq.ParquetFile(plain).schema_arrow.names == ["query", "positives"]


def test_blank_lines_and_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"query": "q", "positives": ["d"]}\r\n\n{"query": "q2", "positives": ["d2"]}')
    assert [row.query for row in read_rows(path)] == ["q", "q2"]
    assert count_rows(path) == 2


def test_count_of_parquet_reads_only_the_footer(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.parquet", [FULL] * 9)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(bytes(data))
    assert count_rows(path) == 9
    with pytest.raises(UserError, match=r"rows.parquet: row group 1: column 'query': cannot be read: .*\n"):
        read_rows(path)


GOOD = {"query": "q", "positives": ["d"]}
FAULTS = [
    ('{"query": "q",', ":2: broken JSON at column 15: Expecting property name enclosed in double quotes"),
    ('["q"]', ":2: found a list, expected a JSON object with keys"),
    (GOOD | {"negativs": []}, ":2: 'negativs': unknown key; did you mean 'negatives'?"),
    ({"query": "q", "pos": ["d"]}, ":2: 'pos': unknown key; did you mean 'positives'?"),
    ({"positives": ["d"]}, ":2: 'query' is missing; expected text"),
    ({"query": "q", "positives": None}, ":2: 'positives' is missing; expected a list of texts"),
    (GOOD | {"query": 3}, ":2: 'query': found 3 (number), expected text"),
    (GOOD | {"query": "\ud83d"}, ":2: 'query': found '\\ud83d' (text), expected text"),
    (GOOD | {"positives": "d"}, ":2: 'positives': found 'd' (text), expected a list of texts"),
    (GOOD | {"negatives": ["x", None]}, ":2: 'negatives[1]': found nothing, expected a list of texts"),
    (GOOD | {"score": "high"}, ":2: 'score': found 'high' (text), expected a finite number"),
    (GOOD | {"score": True}, ":2: 'score': found true, expected a finite number"),
    (GOOD | {"score": float("nan")}, ":2: 'score': found nan (number), expected a finite number"),
    (GOOD | {"query": " \t"}, ":2: 'query': found blank text, expected a query"),
    (GOOD | {"positives": []}, ":2: 'positives': found an empty list, expected at least one text"),
    (GOOD | {"positives": ["d", " "]}, ":2: 'positives[1]': found blank text, expected a document"),
    (GOOD | {"negatives": ["x", "d "]}, ":2: 'negatives[1]': 'd ' is also a positive of this row"),
    (GOOD | {"positive_scores": [1, 2]}, ":2: 'positive_scores': found 2 scores for 1 positives"),
    (GOOD | {"negative_scores": [1]}, ":2: 'negative_scores': found 1 scores for 0 negatives"),
]


@pytest.mark.parametrize(("record", "message"), FAULTS)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_faults_name_file_line_key_and_what_was_expected(
    tmp_path: Path, record: object, message: str, name: str
) -> None:
    path = write_jsonl(tmp_path / name, GOOD, record)
    with pytest.raises(UserError) as error:
        read_rows(path)
    assert str(error.value) == f"{path}{message}"


def test_faults_of_parquet_name_the_row_or_the_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"query": ["q", ""], "positives": [["d"], ["d"]]}), path)
    with pytest.raises(UserError, match=r"rows.parquet: row 2: 'query': found blank text"):
        read_rows(path)
    pq.write_table(pa.table({"query": ["q"], "positive": [["d"]]}), path)
    for read in (read_rows, count_rows):
        with pytest.raises(UserError, match=r"column: 'positive': unknown key; did you mean 'positives'\?"):
            read(path)
    table = pa.table({"query": ["q"], "positives": [["d"]]})
    pq.write_table(table.replace_schema_metadata({"embedtrain_rows": "3"}), path)
    with pytest.raises(UserError, match="rows of version 3; this embedtrain reads up to 2"):
        read_rows(path)


def test_faults_of_whole_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", GOOD)
    cases = {
        "trian.jsonl": r"no such file; did you mean '.*train\.jsonl'\?",
        "empty.jsonl": "no rows; expected at least one",
        "latin.jsonl": r"latin.jsonl:1: not UTF-8 text \(byte 12 of the line\)",
        "cut.jsonl.gz": "broken gzip file",
        "rows.csv": r"unknown kind of file; expected \.jsonl, \.jsonl\.gz, \.parquet",
        "not.parquet": "not a parquet file",
    }
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes('{"query": "é"}'.encode("latin-1"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"query": "q", "positives": ["d"]}\n' * 99)[:-4])
    (tmp_path / "rows.csv").write_text("query,positives\n")
    (tmp_path / "not.parquet").write_text("PAR")
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            read_rows(tmp_path / name)
    with pytest.raises(UserError, match="is a folder, not a file"):
        read_rows(tmp_path)


def test_unusable_rows_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(UserError, match=r"row 2: 'negatives\[0\]': 'd' is also a positive of this row"):
        write_rows(path, [FULL, Row("q", ("d",), negatives=("d",))])
    assert not path.exists()


def test_text_key_is_stable_signed_and_blind_to_outer_white_space() -> None:
    assert text_key("apt") == text_key(" apt\n") == 4557418924940688580
    assert text_key("Apt") != text_key("apt")
    keys = [text_key(str(n)) for n in range(100)]
    assert min(keys) < 0 < max(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)
