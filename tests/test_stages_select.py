"""The select stage on what a word encoder mined."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mined_sources import context_of, make_run, mine_with_words, write_sources

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.references import inputs_of
from embedtrain.data.rows import Row, text_key, write_rows
from embedtrain.data.store import open_rows, store_rows, write_store
from embedtrain.mining.corpus import known_positives
from embedtrain.mining.tables import read_corpus, read_mined
from embedtrain.stages import select

ABSOLUTE = {"kind": "absolute", "ceiling": -0.9}


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[Row]]:
    return write_sources(tmp_path)


def chosen_rows(folder: Path, name: str = "one") -> list[Row]:
    return list(open_rows(folder / "r" / "chosen" / "rows" / name))


@pytest.mark.parametrize("rule", ["perc_pos", "margin_pos", "absolute", None])
def test_selected_rows(tmp_path: Path, rows: dict[str, list[Row]], rule: str | None) -> None:
    rules = [{"kind": rule}] if rule else []
    chosen = {"rules": rules, "num_negatives": 3, "require_positive_in_top": 28, "first_rank": 2}
    run = make_run(tmp_path, {"one": {}, "two": {}}, {"top_k": 30}, chosen)
    mine_with_words(run, tmp_path)
    facts = select.run_stage(context_of(run, "chosen", tmp_path))
    written = read_json(tmp_path / "r" / "chosen" / "reasons.json")
    for name in ("one", "two"):
        counts = facts["sources"][name]
        assert counts == {part: written[name][part] for part in counts}
        mined = read_mined(tmp_path / "r" / "mined", name)
        keys, _ = read_corpus(tmp_path / "r" / "mined", name)
        ranked = [[int(keys[id]) for id in ids if id >= 0] for ids in mined.ids_QK]
        own = [[text_key(text) for text in row.positives] for row in rows[name]]
        stay = [n for n in range(len(own)) if set(own[n]) <= set(ranked[n][:28])]
        kept = chosen_rows(tmp_path, name)
        assert [row.query for row in kept] == [rows[name][n].query for n in stay]
        assert 0 < len(kept) < len(rows[name])
        assert counts["candidates"]["kept"] == sum(len(row.negatives) for row in kept) > 0
        assert sum(counts["candidates"].values()) == mined.present_QK.sum()
        assert counts["rows"]["dropped"] == len(rows[name]) - len(kept)
        assert sum(counts["rows"].values()) == len(rows[name])
        known: dict[int, set[int]] = {}
        for row in rows[name]:
            known.setdefault(text_key(row.query), set()).update(map(text_key, row.positives))
        for row, number in zip(kept, stay, strict=True):
            lowest = min(row.positive_scores)
            assert row.positives == rows[name][number].positives
            assert row.positive_scores == tuple(mined.columns["base"].positive_scores[number].tolist())
            assert list(row.negative_scores or ()) == sorted(row.negative_scores or (), reverse=True)
            assert not {text_key(text) for text in row.negatives} & known[text_key(row.query)]
            assert row.query not in row.negatives
            bound = {"perc_pos": 0.95 * lowest, "margin_pos": lowest - 0.05, "absolute": 0.7, None: 9}
            assert all(score < bound[rule] for score in row.negative_scores or () if lowest > 0)


def test_another_rows_positive_for_the_same_query_is_never_a_negative(tmp_path: Path) -> None:
    lines = [Row("apple pear", ("plum one",)), Row(" apple pear ", ("apple two",)), Row("river", ("pear",))]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {}}, {}, {"rules": []})
    mine_with_words(run, tmp_path)
    select.run_stage(context_of(run, "chosen", tmp_path))
    kept = chosen_rows(tmp_path)
    assert [row.negatives for row in kept[:2]] == [("pear",), ("pear",)]


def test_in_a_symmetric_source_a_positives_query_is_never_its_negative(tmp_path: Path) -> None:
    lines = [Row("apple pear", ("plum",)), Row("plum", ("stone",)), Row("river", ("apple pear",))]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {"symmetric": True}}, {}, {"rules": []})
    mine_with_words(run, tmp_path)
    select.run_stage(context_of(run, "chosen", tmp_path))
    kept = chosen_rows(tmp_path)
    assert kept[1].negatives == ("river",)  # stone is its positive; it is a positive of apple pear


texts = st.sampled_from(["a", "b", "c", "a ", " b", "d e", "e d", "c c"])


@settings(max_examples=15, deadline=None)
@given(
    made=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=10),
    symmetric=st.booleans(),
    max_rows=st.none() | st.integers(1, 6),
)
def test_never_a_known_positive_or_equal_text(tmp_path_factory, made, symmetric, max_rows) -> None:
    folder = tmp_path_factory.mktemp("never")
    lines = [Row(query, tuple(positives)) for query, positives in made]
    write_rows(folder / "one.parquet", lines)
    chosen = {"rules": []}
    mined = {"top_k": 4} | ({"max_rows": max_rows} if max_rows else {})
    run = make_run(folder, {"one": {"symmetric": symmetric}}, mined, chosen)
    mine_with_words(run, folder)
    select.run_stage(context_of(run, "chosen", folder))
    for row in chosen_rows(folder):
        banned = {row.query.strip()}
        banned |= {p.strip() for q, ps in made for p in ps if q.strip() == row.query.strip()}
        if symmetric:
            banned |= {q.strip() for q, ps in made if row.query.strip() in {p.strip() for p in ps}}
        assert not {text.strip() for text in row.negatives} & banned
        assert len({text.strip() for text in row.negatives}) == len(row.negatives)


def test_ranks_beyond_the_mined_ones_are_refused(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    for key in ("require_positive_in_top", "first_rank"):
        run = make_run(tmp_path, {"one": {}}, {"top_k": 10}, {key: 20})
        with pytest.raises(UserError) as error:
            select.run_stage(context_of(run, "chosen", tmp_path))
        assert str(error.value) == (
            f"stage 'chosen' > {key}: 20, but stage 'mined' keeps 10 candidates a row; "
            "lower it, or raise top_k there"
        )


def test_a_source_that_loses_all_rows_is_an_error(tmp_path: Path) -> None:
    lines = [Row("apple pear", ("river stone",)), Row("river stone", ("apple pear",))]
    write_rows(tmp_path / "one.parquet", lines)
    run = make_run(tmp_path, {"one": {}}, {}, {"require_positive_in_top": 1})
    mine_with_words(run, tmp_path)
    with pytest.raises(UserError) as error:
        select.run_stage(context_of(run, "chosen", tmp_path))
    assert str(error.value) == (
        "stage 'chosen' > require_positive_in_top: 1 drops all 2 rows of source 'one'; "
        "raise it, or mine with a better model"
    )


def test_a_poor_yield_is_said(tmp_path: Path, rows: dict[str, list[Row]], capsys) -> None:
    chosen = {"rules": [ABSOLUTE]}
    run = make_run(tmp_path, {"one": {}}, {"top_k": 10}, chosen)
    mine_with_words(run, tmp_path)
    facts = select.run_stage(context_of(run, "chosen", tmp_path))
    counts = facts["sources"]["one"]["candidates"]
    assert counts["kept"] == 0
    assert (
        "source 'one': 40 of 40 rows got no negative; absolute refused "
        f"{counts['absolute'] / 400:.0%} of their candidates. An untrained model scores all texts alike: "
        "mine with a trained stage, raise top_k, or loosen the rule"
    ) in capsys.readouterr().out
    generous = make_run(tmp_path, {"one": {}}, {"top_k": 10}, {"rules": []})
    select.run_stage(context_of(generous, "chosen", tmp_path))
    assert "got no negative" not in capsys.readouterr().out


def test_the_same_rows_again_over_what_a_killed_attempt_left(tmp_path: Path, rows) -> None:
    chosen = {"choice": {"kind": "sample", "temperature": 0.1}, "num_negatives": 2, "fill": "random"}
    run = make_run(tmp_path, {"one": {}, "two": {}}, {"top_k": 15}, chosen)
    mine_with_words(run, tmp_path)
    context = context_of(run, "chosen", tmp_path)
    select.run_stage(context)
    files = sorted(path for path in context.folder.rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in files}
    (context.folder / "rows" / "two" / "rows.parquet").unlink()
    select.run_stage(context)
    assert {path: path.read_bytes() for path in files} == before
    assert {len(row.negatives) for row in chosen_rows(tmp_path, "two")} == {2}


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ({"judge": "bas"}, "stage 'chosen': no column 'bas'; did you mean 'base'?"),
        ({"rules": [{"kind": "absolute", "judge": "teacher"}]}, "stage 'chosen': no column 'teacher'; "),
    ],
)
def test_columns_that_nobody_wrote_are_refused(tmp_path: Path, rows, stage: dict, text: str) -> None:
    run = make_run(tmp_path, {"one": {}}, {"top_k": 5}, stage)
    mine_with_words(run, tmp_path)
    with pytest.raises(UserError) as error:
        select.run_stage(context_of(run, "chosen", tmp_path))
    assert str(error.value).startswith(text)


def test_rows_that_shrank_since_are_refused(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    run = make_run(tmp_path, {"one": {}}, {}, {})
    mine_with_words(run, tmp_path)
    write_rows(tmp_path / "one.parquet", rows["one"][:10])
    with pytest.raises(UserError, match=r"one\.parquet: 10 rows, but stage 'mined' mined row number 39; "):
        select.run_stage(context_of(run, "chosen", tmp_path))


def slow_known(rows: list[Row], symmetric: bool) -> dict[int, set[int]]:
    """Row after row: for each text, the keys of those that must never be its negatives."""
    known: dict[int, set[int]] = {}
    for row in rows:
        query, positives = text_key(row.query), {text_key(text) for text in row.positives}
        known.setdefault(query, set()).update(positives)
        for key in positives if symmetric else ():
            known.setdefault(key, set()).add(query)
    return known


@settings(max_examples=40, deadline=None)
@given(
    made=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=10),
    symmetric=st.booleans(),
)
def test_known_positives_are_those_of_all_rows(tmp_path_factory, made, symmetric) -> None:
    rows = [Row(query, tuple(positives)) for query, positives in made]
    store = store_rows(rows, tmp_path_factory.mktemp("known") / "store")
    expected = slow_known(rows, symmetric)
    assert known_positives(store, store.query_N, symmetric) == [
        sorted(expected[text_key(row.query)]) for row in rows
    ]


def test_filtered_rows_are_mined_and_selected(tmp_path: Path, rows: dict[str, list[Row]]) -> None:
    """`rows` of the mine stage: a folder of rows and a file; both stages read them and not the source."""
    filtered = tmp_path / "r" / "filtered" / "rows"
    filtered.mkdir(parents=True)
    write_store(filtered / "one", rows["one"][5:15])
    write_rows(filtered / "two.parquet", rows["two"][:7])
    run = make_run(tmp_path, {"one": {}, "two": {}}, {"rows": "filtered", "top_k": 4}, {})
    assert [inputs_of(run, stage) for stage in run.stages] == [["filtered"], ["mined", "filtered"]]
    inputs = {"filtered": filtered.parent}
    facts, _ = mine_with_words(run, tmp_path, **inputs)
    assert {name: fact["rows"] for name, fact in facts.items()} == {"one": 10, "two": 7}
    select.run_stage(context_of(run, "chosen", tmp_path, **inputs))
    kept = {name: chosen_rows(tmp_path, name) for name in rows}
    assert [row.query for row in kept["one"]] == [row.query for row in rows["one"][5:15]]
    assert [row.query for row in kept["two"]] == [row.query for row in rows["two"][:7]]
    positives = {text for row in rows["one"][5:15] for text in row.positives}
    assert all(set(row.negatives) <= positives for row in kept["one"])
    (filtered / "two.parquet").unlink()
    facts, _ = mine_with_words(run, tmp_path, **inputs)
    assert list(facts) == ["one"]
    named = make_run(tmp_path, {"one": {}, "two": {}}, {"rows": "filtered", "sources": ["two"]}, {})
    with pytest.raises(UserError, match="stage 'mined': stage 'filtered' has no rows of two; it has one"):
        mine_with_words(named, tmp_path, **inputs)
