"""What a plan says of the sources: shares and repetitions, from the rows that are there."""

from pathlib import Path

import pytest

from embedtrain.config.mining import Mine, Select
from embedtrain.config.schema import Base, Run
from embedtrain.config.sources import Source
from embedtrain.config.stages import Train
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import write_store
from embedtrain.stages.shares import print_shares, share_lines


def rows(count: int) -> list[Row]:
    return [Row(f"query {n}", (f"text {n}",)) for n in range(count)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """40 and 100 rows, the latter capped to 60; trained as they are, then on what was selected of 50."""
    write_rows(tmp_path / "a.parquet", rows(40))
    write_store(tmp_path / "b", rows(100))
    common = {"objective": {"terms": [{"kind": "infonce"}]}, "batch_size": 10, "lr": 1e-3}
    first = Train.model_validate({"kind": "train", "name": "first", "steps": 12, **common})
    mine = Mine.model_validate({"kind": "mine", "name": "mined", "from": "first", "max_rows": 50})
    select = Select(kind="select", name="hard", candidates="mined", num_negatives=1)
    last = Train.model_validate({"kind": "train", "name": "last", "epochs": 1, "rows": "hard", **common})
    return Run(
        name="two",
        base=Base(model="tiny"),
        sources={
            "a": Source(rows=str(tmp_path / "a.parquet"), weight=3),
            "b": Source(rows=str(tmp_path / "b"), max_rows=60),
            "off": Source(rows="nowhere.parquet", weight=0),
        },
        stages=(first, mine, select, last),
    )


def test_shares_of_every_training_stage(run: Run, tmp_path: Path) -> None:
    first, *_, last = run.stages
    assert isinstance(first, Train)
    assert isinstance(last, Train)
    assert [*share_lines(run, first, {})] == [
        ["first", "a", 40, 75.0, 90, 2.25],
        ["first", "b", 60, 25.0, 30, 0.5],
    ]
    before = [*share_lines(run, last, {})]  # 40 + 50 rows make 9 steps
    assert [line[2] for line in before] == [40, 50]
    assert [line[4] for line in before] == [70, 20]
    folder = tmp_path / "hard-12345678"
    (folder / "rows").mkdir(parents=True)
    write_rows(folder / "rows" / "a.parquet", rows(31))
    write_store(folder / "rows" / "b", rows(29))
    assert [line[2:] for line in share_lines(run, last, {"hard": folder})] == [
        pytest.approx([31, 100 * 5 / 6, 50, 50 / 31]),
        pytest.approx([29, 100 / 6, 10, 10 / 29]),
    ]


def test_the_table_says_what_is_not_known_yet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    print_shares(run, {})
    said = capsys.readouterr().out
    assert "what training sees" in said
    assert "75.00" in said
    assert "2.25" in said
    assert "counted before hard, which may leave fewer rows" in said
    print_shares(run.model_copy(update={"stages": run.stages[:1]}), {})
    assert "counted before" not in capsys.readouterr().out
