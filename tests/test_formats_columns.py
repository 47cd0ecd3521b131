"""sentence-transformers' columns: by name, by position, and with every kind of label."""

from pathlib import Path
from typing import Any

import pytest
from foreign_files import read_all, read_record

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row

PAIR = {"question": "q", "answer": "d"}
MANY = {"anchor": "q", "positive": "d", "negative_1": "n", "negative_2": "m"}


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (PAIR, Row("q", ("d",))),
        (PAIR | {"label": "billing"}, Row("q", ("d",), label="billing")),
        (PAIR | {"score": 0.25}, Row("q", ("d",), score=0.25)),
        (PAIR | {"contradiction": "n"}, Row("q", ("d",), ("n",))),
        ({"query": "q", "document": "d", "negatives": ["n", "m"]}, Row("q", ("d",), ("n", "m"))),
        (MANY, Row("q", ("d",), ("n", "m"))),
        (MANY | {"label": [3, 1.5, 2]}, Row("q", ("d",), ("n", "m"), (3.0,), (1.5, 2.0))),
        (MANY | {"label": [1.5, 1]}, Row("q", ("d",), ("n", "m"), (0.0,), (-1.5, -1.0))),
        (PAIR | {"negative": "n", "score": 4}, Row("q", ("d",), ("n",), (0.0,), (-4.0,))),
        ({"query": "q", "document": ["n", "d"], "labels": [0, 1]}, Row("q", ("d",), ("n",))),
    ],
)
def test_columns_by_name(tmp_path: Path, record: dict[str, Any], row: Row) -> None:
    assert read_record(tmp_path, record) == row


def test_columns_by_position_only_on_request(tmp_path: Path) -> None:
    record = {"label": 0.5, "good": "q", "better": "d"}
    with pytest.raises(UserError, match="no known format"):
        read_record(tmp_path, record)
    assert read_record(tmp_path, record, "columns") == Row("q", ("d",), score=0.5)
    three = {"a": "q", "b": "d", "c": "n"}
    assert read_record(tmp_path, three, "columns") == Row("q", ("d",), ("n",))
    with pytest.raises(UserError, match=r"one.jsonl:1: column 'row_id' holds no text.*--column query=row_id"):
        read_record(tmp_path, {"row_id": "7", "a": "q", "b": "d"}, "columns")


def test_numbers_and_lists_in_cells_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('sentence1,sentence2,score\na,b,"0.5"\n[1] a,c,\n')
    assert read_all(tmp_path / "x.csv") == [Row("a", ("b",), score=0.5), Row("[1] a", ("c",))]
    (tmp_path / "y.csv").write_text('query,pos,neg\na,"[""b"", ""c""]",d\n')
    assert read_all(tmp_path / "y.csv") == [Row("a", ("b", "c"), ("d",))]
