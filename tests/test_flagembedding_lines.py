"""FlagEmbedding's jsonl, written: what is read from it again is what was written."""

import gzip
import json
from pathlib import Path

import pytest

from embedtrain.data.formats.flagembedding import read, write_lines
from embedtrain.data.formats.request import Request
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row

ROWS = [
    Row("wie heißt das?", ("so", "ja so"), ("nein",), (1.0, 0.25), (-0.5,), task="retrieval"),
    Row("q", ("d",)),
    Row("another", ("e",), ("f", "g"), instruction="Find: ", task="only_1neg"),
    Row("tab\t and \u2028 line", ('"quoted"\nline',), task="sts"),
    Row("own", ("o",), task="my_task"),
]


def read_back(path: Path) -> list[Row]:
    problems = Problems()
    rows = [row for _, row in read(Request(str(path), problems))]
    problems.require()
    return rows


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    assert write_lines(tmp_path / name, ROWS) == len(ROWS)
    assert read_back(tmp_path / name) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_lines_have_the_keys_that_its_trainers_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "lines.jsonl", ROWS)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().split("\n")[:-1]]
    assert lines[0] == {
        "query": "wie heißt das?",
        "pos": ["so", "ja so"],
        "neg": ["nein"],
        "pos_scores": [1.0, 0.25],
        "neg_scores": [-0.5],
        "type": "normal",
    }
    assert lines[1] == {"query": "q", "pos": ["d"], "neg": []}
    assert lines[2] == {
        "query": "another",
        "pos": ["e"],
        "neg": ["f", "g"],
        "prompt": "Find: ",
        "type": "only_1neg",
    }
    assert [line["type"] for line in lines[3:]] == ["symmetric_sts", "my_task"]


def test_packed_lines_have_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_lines(tmp_path / name, ROWS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).count(b"\n") == len(ROWS)


def test_nothing_is_left_where_the_rows_end_in_an_error(tmp_path: Path) -> None:
    def broken():
        yield ROWS[0]
        raise RuntimeError("the rows end here")

    (tmp_path / "lines.jsonl").write_text("before\n")
    with pytest.raises(RuntimeError):
        write_lines(tmp_path / "lines.jsonl", broken())
    assert (tmp_path / "lines.jsonl").read_text() == "before\n"
    assert len(list(tmp_path.iterdir())) == 1
