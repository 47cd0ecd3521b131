"""Rows held out: no text on both sides, all documents searched, the same draw each time."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from embedtrain.cli import app
from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, read_rows, text_key, write_rows
from embedtrain.data.split import num_refused, split_rows
from embedtrain.data.store import open_rows, store_rows
from embedtrain.evaluation.beir import read_beir
from embedtrain.stages.split import HELD_OUT, split_file

ROOT = Path(__file__).parent.parent
TEXTS = [f"text {letter}" for letter in "abcdefghijkl"]


def sides(row: Row) -> set[int]:
    """What may stand on one side alone."""
    return {text_key(text) for text in (row.query, *row.positives)}


def slow_groups(rows: list[Row]) -> list[set[int]]:
    """Numbers of rows that stay together: groups are merged until none has a text in common with another."""
    groups = [({number}, sides(row)) for number, row in enumerate(rows)]
    merged = True
    while merged:
        merged = False
        for first in range(len(groups)):
            for second in range(first + 1, len(groups)):
                if groups[first][1] & groups[second][1]:
                    numbers, texts = groups.pop(second)
                    groups[first] = (groups[first][0] | numbers, groups[first][1] | texts)
                    merged = True
                    break
            if merged:
                break
    return [numbers for numbers, _ in groups]


some_rows = st.lists(
    st.builds(
        lambda texts, more: Row(texts[0], tuple(texts[1:]), tuple(set(more) - set(texts))),
        st.lists(st.sampled_from(TEXTS), min_size=2, max_size=3, unique=True),
        st.lists(st.sampled_from(TEXTS), max_size=2),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(rows=some_rows, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_groups_stay_together(
    rows: list[Row], share: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As the slow twin finds them; a group is left out only where it no longer fits."""
    store = store_rows(rows, tmp_path_factory.mktemp("rows") / "store")
    train, held_out = (set(numbers.tolist()) for numbers in split_rows(store, share, seed))
    assert train | held_out == set(range(len(rows)))
    assert not train & held_out
    room = min(round(share * len(rows)), len(rows) - 1) - len(held_out)
    assert room >= 0
    for group in slow_groups(rows):
        assert group <= train or group <= held_out
        assert group <= held_out or len(group) > room
    out_texts = {text for number in held_out for text in (rows[number].query, *rows[number].positives)}
    refused = sum(not out_texts.isdisjoint(rows[number].negatives) for number in train)
    kept, out = (store.take(np.array(sorted(numbers), np.int64)) for numbers in (train, held_out))
    assert num_refused(kept, out) == refused


def test_real_rows(tmp_path: Path) -> None:
    """Of usage pairs, of which several are about one sentence: rows and a test that searches all of them."""
    rows = read_rows(ROOT / "rows" / "usage" / "train.parquet")[:3000]
    write_rows(tmp_path / "rows.parquet", rows)
    train, test = tmp_path / "train", tmp_path / "test"
    split_file(tmp_path / "rows.parquet", train, test, share=0.1, seed=3)
    kept, held_out = list(open_rows(train)), read_rows(test / HELD_OUT)
    assert sorted(map(repr, [*kept, *held_out])) == sorted(map(repr, rows))
    assert len(held_out) == 300
    assert not set().union(*map(sides, kept)) & set().union(*map(sides, held_out))
    task = read_beir(test)
    answers = {text_key(text) for row in held_out for text in row.positives}
    asked_keys = {text_key(row.query) for row in held_out} - answers
    everything = {text_key(text) for row in rows for text in row.positives}
    assert {text_key(text) for text in task.documents} == everything - asked_keys
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    asked = dict(zip(task.query_ids, task.queries, strict=True))
    assert {(asked[query], texts[name]) for query, names in task.judged.items() for name in names} == {
        (row.query, text) for row in held_out if text_key(row.query) in asked_keys for text in row.positives
    }
    assert set(map(text_key, task.queries)) == asked_keys


def test_a_seed_draws_the_same_bytes(tmp_path: Path) -> None:
    rows = ROOT / "rows" / "wordnet" / "test.parquet"
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        split_file(rows, tmp_path / name / "train", tmp_path / name / "test", share=0.2, seed=seed)
    files = ["train/rows.parquet", "train/texts.parquet", "test/queries.jsonl", "test/qrels/test.tsv"]
    for file in (*files, f"test/{HELD_OUT}"):
        first, again, other = ((tmp_path / name / file).read_bytes() for name in ("first", "again", "other"))
        assert first == again != other


def test_negatives_are_documents_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text that is one row's positive and another's negative is one document."""
    rows = [Row(f"query {n}", (f"answer {n}",), (f"answer {(n + 1) % 10}", "wrong")) for n in range(10)]
    write_rows(tmp_path / "rows.parquet", rows)
    split_file(tmp_path / "rows.parquet", tmp_path / "train", tmp_path / "test", share=0.1, seed=0)
    assert "1 rows to train on have a held-out text among their negatives" in capsys.readouterr().out
    lines = (tmp_path / "test" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [*(f"answer {n}" for n in range(10)), "wrong"]


def test_no_query_finds_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is another row's negative is no document; one that answers another is not asked."""
    rows = [Row("a", ("b",), ("z",)), Row("b", ("c",)), Row("d", ("e",), ("a",)), Row("f", ("e",), ("a",))]
    write_rows(tmp_path / "rows.parquet", rows)
    drawn = next(
        seed for seed in range(9) if split_rows(open_rows(tmp_path / "rows.parquet"), 0.5, seed)[1][0] == 0
    )
    split_file(tmp_path / "rows.parquet", tmp_path / "train", tmp_path / "test", share=0.5, seed=drawn)
    assert [row.query for row in read_rows(tmp_path / "test" / HELD_OUT)] == ["a", "b"]
    task = read_beir(tmp_path / "test")
    assert task.queries == ("a",)
    assert task.documents == ("b", "c", "e", "z")
    told = capsys.readouterr().out
    assert "1 queries held out are not asked: they answer others, and would find themselves" in told
    assert "2 rows to train on have a held-out text among their negatives" in told


@pytest.mark.parametrize(("train", "test"), [("a", "a"), ("a/b", "a"), ("a", "a/b"), ("a", "./b/../a")])
def test_folders_in_each_other(tmp_path: Path, train: str, test: str) -> None:
    with pytest.raises(UserError, match="expected two folders beside each other"):
        split_file(ROOT / "rows/wordnet/test.parquet", tmp_path / train, tmp_path / test, share=0.1, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_split_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the rows were written, before the test is in place."""

    replace = Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target == tmp_path / "test":
            assert (tmp_path / "train" / "rows.parquet").is_file()
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stop)
    rows = ROOT / "rows" / "wordnet" / "test.parquet"
    with pytest.raises(KeyboardInterrupt):
        split_file(rows, tmp_path / "train", tmp_path / "test", share=0.1, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "share", "wrong"),
    [
        ([Row("q", ("a",))], 1.0, "--share 1: expected a number between 0 and 1"),
        ([Row("q", ("a",))], 0.5, "--share 0.5 of 1 rows holds none out: expected two rows"),
        ([Row("q", ("a",)), Row("r", ("b",))], 0.2, "--share 0.2 of 2 rows holds none out"),
        ([Row(a, (b,)) for a, b in ("qa", "aq", "rb")], 0.67, "every query held out answers another one"),
        ([Row("q", ("a",)), Row("r", ("a",))], 0.9, "the smallest group of rows with texts in common has 2"),
        ([Row("q", ("a",), score=0.5), Row("r", ("b",))], 0.5, "1 rows have a grade; expected queries"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, rows: list[Row], share: float, wrong: str) -> None:
    write_rows(tmp_path / "rows.parquet", rows)
    with pytest.raises(UserError) as error:
        split_file(tmp_path / "rows.parquet", tmp_path / "train", tmp_path / "test", share=share, seed=0)
    assert wrong in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize("there", ["train", "test"])
def test_nothing_is_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir()
    words = ["split", str(ROOT / "rows/wordnet/test.parquet"), "--train", str(tmp_path / "train")]
    result = CliRunner().invoke(app, [*words, "--test", str(tmp_path / "test")])
    assert result.exit_code != 0
    assert f"{tmp_path / there}: is there already; remove it or give another name" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == [there]
