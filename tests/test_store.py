"""RowStore: rows come back as they were, from any file or folder, read as they are asked for."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.config.sources import Source
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.data.store import open_rows, open_source, store_rows, write_store
from embedtrain.data.store.keys import KeyTable

ROWS = [
    Row("what is apt", ("a package manager", "a tool"), ("a flat",), (0.9, 1.0), (-0.25,), 4.5, "admin"),
    Row("a tool", ("what is apt",), task="retrieval", instruction="Answer", source="debian"),
    Row("only a query", ("and its answer",), label="admin", instruction=" Answer"),
    Row("a fourth", ("one",), ("two", "three"), None, (0.5, 0.25), 0.0, "other"),
]
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).map(str.strip).filter(bool)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def any_row(draw: st.DrawFn) -> Row:
    """A row of any shape; every text without outer white space, as equal keys keep one spelling."""
    positives = draw(st.lists(words, min_size=1, max_size=3).map(tuple))
    negatives = draw(st.lists(words.filter(lambda text: text not in positives), max_size=3).map(tuple))
    scores = [st.none() | st.tuples(*[numbers] * len(texts)) for texts in (positives, negatives)]
    names = [draw(st.none() | st.text("ab ", max_size=2)) for _ in range(4)]
    given = [draw(kind) or None for kind in scores]
    return Row(draw(words), positives, negatives, *given, draw(st.none() | numbers), *names)


def test_rows_come_back_from_a_folder_and_from_a_file(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "rows", ROWS)
    for path in (folder, write_rows(tmp_path / "rows.parquet", ROWS)):
        store = open_rows(path)
        assert list(store) == ROWS
        assert [store[i] for i in range(-4, 0)] == ROWS
        assert count_rows(path) == len(store) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(any_row(), min_size=1, max_size=6), st.data())
def test_any_rows_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = open_rows(write_store(folder / "rows", rows))
    assert list(store) == rows
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    view = store.take(np.array(chosen, np.int64))
    assert list(view) == [rows[i] for i in chosen]
    assert list(view.take(np.arange(len(view))[::-1])) == list(view)[::-1]
    if chosen:
        assert list(open_rows(write_store(folder / "again", view))) == list(view)


def test_arrays_say_what_the_rows_say(tmp_path: Path) -> None:
    whole = open_rows(write_store(tmp_path / "rows", ROWS))
    for store, rows in ((whole, ROWS), (whole.take(np.array([3, 0, 0])), [ROWS[3], ROWS[0], ROWS[0]])):
        assert store.texts(store.query_N) == [row.query for row in rows]
        for i, row in enumerate(rows):
            positives = slice(*store.positive_starts[i : i + 2])
            negatives = slice(*store.negative_starts[i : i + 2])
            assert tuple(store.texts(store.positive_P[positives])) == row.positives
            assert tuple(store.texts(store.negative_Q[negatives])) == row.negatives
            given = row.negative_scores or (np.nan,) * len(row.negatives)
            np.testing.assert_array_equal(store.negative_score_Q[negatives], given)
            given = row.positive_scores or (np.nan,) * len(row.positives)
            np.testing.assert_array_equal(store.positive_score_P[positives], given)
        np.testing.assert_array_equal(store.score_N, [np.nan if r.score is None else r.score for r in rows])
        names = {"label": store.labels, "task": store.tasks, "instruction": store.instructions}
        for name, values in names.items():
            codes = getattr(store, f"{name}_N")
            assert codes.dtype == np.int32
            assert [None if c < 0 else values[c] for c in codes] == [getattr(r, name) for r in rows]
    assert whole.keys_M.tolist() == [text_key(whole.text(i)) for i in range(whole.num_texts)]
    assert len(set(whole.keys_M.tolist())) == whole.num_texts == 10


def test_equal_rows_give_equal_files_and_a_version(tmp_path: Path) -> None:
    first, second = (write_store(tmp_path / name, ROWS * 3, facts={"from": "here"}) for name in "ab")
    for name in ("rows.parquet", "texts.parquet", "facts.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert sorted(path.name for path in first.iterdir()) == ["facts.json", "rows.parquet", "texts.parquet"]
    assert pq.ParquetFile(first / "rows.parquet").schema_arrow.metadata == {b"embedtrain_rows": b"2"}
    plain = write_store(tmp_path / "plain", [Row("q", ("d",))])
    assert pq.ParquetFile(plain / "rows.parquet").schema_arrow.names == ["query", "positives"]


def test_a_store_is_built_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    path = write_rows(tmp_path / "rows.parquet", ROWS)
    first = open_rows(path)
    copied = tmp_path / "copy.parquet"
    copied.write_bytes(path.read_bytes())
    made = first.folder.stat().st_mtime_ns
    assert open_rows(copied).folder == first.folder
    assert first.folder.stat().st_mtime_ns == made
    (first.folder / "done.json").unlink()  # as if it had been cut off
    assert list(open_rows(path)) == ROWS
    write_rows(path, ROWS[:2])
    second = open_rows(path)
    assert (len(second), second.hash != first.hash) == (2, True)
    assert sorted(p.name for p in first.folder.parent.iterdir() if p.is_dir()) == sorted(
        [first.folder.name, second.folder.name]
    )


def test_views_have_their_own_hash_and_travel(tmp_path: Path) -> None:
    store = store_rows(ROWS, tmp_path / "store")
    views = [store, store.take(np.array([0, 1])), store.take(np.array([1, 0]))]
    assert len({view.hash for view in views}) == 3
    assert views[1].hash == store[:2].hash
    for view in views:
        again = pickle.loads(pickle.dumps(view))
        assert list(again) == list(view)
        assert again.hash == view.hash
    with pytest.raises(IndexError, match="row 4 of 4"):
        store[4]


def test_a_cap_draws_rows_by_seed_and_name(tmp_path: Path) -> None:
    rows = [Row(f"query {n}", (f"document {n}",)) for n in range(200)]
    path = str(write_store(tmp_path / "rows", rows))
    capped = Source(rows=path, max_rows=50)
    drawn = open_source(capped, "one", 7)
    numbers = [rows.index(row) for row in drawn]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 50
    assert list(open_source(capped, "one", 7)) == list(drawn)
    assert list(open_source(capped, "one", 8)) != list(drawn) != list(open_source(capped, "two", 7))
    assert len(open_source(Source(rows=path, max_rows=200), "one", 7)) == 200
    assert len(open_source(Source(rows=path), "one", 7)) == 200


def test_of_equal_keys_the_first_spelling_stays(tmp_path: Path) -> None:
    store = store_rows([Row(" apt", ("dpkg",)), Row("dpkg\n", ("apt ",))], tmp_path / "store")
    assert list(store) == [Row(" apt", ("dpkg",)), Row("dpkg", (" apt",))]
    assert store.num_texts == 2


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> Iterator[Row]:
        yield ROWS[0]
        raise UserError("the reader met a fault")

    with pytest.raises(UserError, match="the reader met a fault"):
        write_store(tmp_path / "rows", broken())
    with pytest.raises(UserError, match="rows: no rows; expected at least one"):
        write_store(tmp_path / "rows", [])
    with pytest.raises(UserError) as caught:
        write_store(tmp_path / "rows", [ROWS[0], Row("q", ()), Row("q", ("d",), ("d",))])
    assert str(caught.value).split("\n") == [
        f"{tmp_path}/rows: row 2: 'positives': found an empty list, expected at least one text",
        f"{tmp_path}/rows: row 3: 'negatives[0]': 'd' is also a positive of this row",
    ]
    assert list(tmp_path.iterdir()) == []
    write_store(tmp_path / "rows", ROWS)
    with pytest.raises(UserError, match="rows: is there already; remove it or give another name"):
        write_store(tmp_path / "rows", ROWS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(-40, 40), max_size=300), max_size=5))
def test_key_table_numbers_keys_in_order_of_first_sight(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[list[int]]
) -> None:
    table, seen = KeyTable(tmp_path_factory.mktemp("keys") / "table"), {}
    for block in blocks:
        known = len(seen)
        expected = [seen.setdefault(key, len(seen)) for key in block]
        numbers, fresh = table.add(np.array(block, np.int64))
        assert numbers.tolist() == expected
        assert [block[place] for place in fresh] == list(seen)[known:]
    assert len(table) == len(seen)
    table.close()


def test_key_table_grows_and_survives_crowded_slots(tmp_path: Path) -> None:
    """Keys that differ only above the bits that choose a slot all ask for the same one."""
    table, keys = KeyTable(tmp_path / "table"), np.arange(1500, dtype=np.int64) << 40
    assert table.add(keys)[0].tolist() == list(range(1500))
    many = np.random.default_rng(0).integers(-(2**63), 2**63, 100_000)
    table.add(many)
    assert table.add(keys)[0].tolist() == list(range(1500))
    assert len(table) == 1500 + len(np.unique(many))
    assert table.add(many)[1].tolist() == []
    table.close()
    assert list(tmp_path.iterdir()) == []
