"""The select stage on what a word encoder mined."""

from math import nan
from pathlib import Path

import numpy as np
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
from embedtrain.mining.tables import (
    CANDIDATES,
    CORPUS,
    CORPUS_SCHEMA,
    SCORES,
    Column,
    Mined,
    candidates_schema,
    corpus_table,
    mined_table,
    read_corpus,
    read_mined,
    scores_schema,
    scores_table,
    table_writer,
)
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


def by_hand(
    folder: Path,
    lines: list[Row],
    texts: list[str],
    ids: list[list[int]],
    scores: dict,
    stage: dict,
    **source,
) -> list[Row]:
    """Rows that select makes of candidates with these scores, `base` mined and the others scored."""
    write_rows(folder / "one.parquet", lines)
    columns = {name: as_column(lines, *values) for name, values in scores.items()}
    taught = [name for name in columns if name != "base"]
    run = make_run(folder, {"one": source}, {"fusion": {"kind": "concatenate"}}, stage)
    context = context_of(run, "chosen", folder, **({"taught": folder / "taught"} if taught else {}))
    for path in context.inputs.values():
        path.mkdir(parents=True, exist_ok=True)
    ranks = np.tile(np.arange(1, len(ids[0]) + 1, dtype=np.int32), (len(ids), 1))
    mined = Mined(np.arange(len(ids)), np.array(ids), ranks, {"base": columns["base"]})
    with table_writer(context.inputs["mined"] / CANDIDATES, candidates_schema(["base"])) as file:
        file.write_table(mined_table("one", mined))
    with table_writer(context.inputs["mined"] / CORPUS, CORPUS_SCHEMA) as file:
        file.write_table(corpus_table("one", np.array([text_key(text) for text in texts]), texts))
    if taught:
        scored = {name: columns[name] for name in taught}
        with table_writer(folder / "taught" / SCORES, scores_schema(taught)) as file:
            file.write_table(scores_table("one", mined.query_row_Q, mined.present_QK, scored))
    select.run_stage(context)
    return chosen_rows(folder)


def as_column(lines: list[Row], candidates: list[list[float]], positives: list[float]) -> Column:
    own = [
        np.full(len(row.positives), score, np.float32) for row, score in zip(lines, positives, strict=True)
    ]
    return Column(np.array(candidates, np.float32), own)


TEXTS = ["zero", "one", "two", "three", "four", "five"]
CEILING = {"kind": "teacher_ceiling", "judge": "teacher", "ceiling": 5.0, "promote": True}
TAUGHT = {"scores": "taught", "num_negatives": 2}


def test_soft_labels_and_promoted_positives_are_written(tmp_path: Path) -> None:
    lines = [Row("q", ("p",)), Row("r", ("p", "five"))]
    scores = {
        "base": ([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]], [1.0, 1.0]),
        "teacher": ([[1.0, 6.0, 2.0, 3.0], [9.0, 4.0, nan, 3.0]], [7.0, 8.0]),
    }
    ids = [[0, 1, 2, 3], [0, 1, 2, 3]]
    stage = TAUGHT | {"rules": [CEILING], "soft_labels": "teacher"}
    first, second = by_hand(tmp_path, lines, TEXTS, ids, scores, stage)
    assert (first.positives, first.positive_scores) == (("p", "one"), (7.0, 6.0))
    assert (first.negatives, first.negative_scores) == (("zero", "two"), (1.0, 2.0))
    assert (second.positives, second.positive_scores) == (("p", "five", "zero"), (8.0, 8.0, 9.0))
    assert (second.negatives, second.negative_scores) == (("one", "three"), (4.0, 3.0))
    counts = read_json(tmp_path / "r" / "chosen" / "reasons.json")["one"]["candidates"]
    assert {name: number for name, number in counts.items() if number} == {
        "not_scored": 1,
        "not_needed": 1,
        "promoted": 2,
        "kept": 4,
    }


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_promoted_text_is_no_negative_of_another_row_with_the_query(
    tmp_path: Path, symmetric: bool
) -> None:
    """Two rows of one query, scored apart; in a symmetric source the promoted text's own row too."""
    lines = [Row("q", ("p",)), Row(" q", ("s",)), Row("one", ("t",))]
    scores = {
        "base": ([[0.9, 0.8]] * 3, [1.0] * 3),
        "teacher": ([[1.0, 6.0], [1.0, 4.0], [1.0, 1.0]], [7.0] * 3),
    }
    ids = [[0, 1], [0, 1], [0, 6]]
    stage = TAUGHT | {"rules": [CEILING]}
    kept = by_hand(tmp_path, lines, [*TEXTS, "q"], ids, scores, stage, symmetric=symmetric)
    assert kept[0].positives == ("p", "one")
    assert [row.negatives for row in kept] == [
        ("zero",),
        ("zero",),
        ("zero",) if symmetric else ("zero", "q"),
    ]
    assert kept[0].positive_scores == (1.0, np.float32(0.8))  # the judge's, which nothing overrides


def test_rows_with_random_documents_or_an_unscored_positive_have_no_scores(tmp_path: Path) -> None:
    lines = [Row("q", ("zero",)), Row("r", ("one",)), Row("s", ("two",))]
    scores = {"base": ([[0.5, 0.9], [0.5, 0.4], [0.5, 0.4]], [0.8, 0.8, nan])}
    ids = [[4, 5], [4, 5], [4, 5]]
    absolute = {"kind": "absolute", "ceiling": 0.7}
    stage = {"rules": [absolute], "num_negatives": 2, "fill": "random"}
    kept = by_hand(tmp_path, lines, TEXTS, ids, scores, stage)
    assert kept[0].negatives[0] == "four"
    assert kept[0].negatives[1] in ("one", "two", "three")
    assert (kept[0].positive_scores, kept[0].negative_scores) == (None, None)
    assert kept[1].negatives == ("four", "five")
    assert kept[1].negative_scores == (0.5, np.float32(0.4))
    assert kept[2].negatives == ("four", "five")
    assert (kept[2].positive_scores, kept[2].negative_scores) == (None, None)
    rows = read_json(tmp_path / "r" / "chosen" / "reasons.json")["one"]["rows"]
    assert (rows["with_all_negatives"], rows["filled_at_random"]) == (3, 1)


def test_a_text_refused_by_its_best_rank_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    """Two lists end to end: what one of them ranks first is not a negative for being third in the other."""
    scores = {"base": ([[0.9, 0.5, 0.9, 0.4]], [1.0])}
    stage = {"rules": [{"kind": "shift", "ranks": 1}], "num_negatives": 4}
    (kept,) = by_hand(tmp_path, [Row("q", ("p",))], TEXTS, [[0, 1, 0, 2]], scores, stage)
    assert kept.negatives == ("one", "two")


def test_texts_of_the_querys_label_are_refused_and_never_fill(tmp_path: Path) -> None:
    """`one` has the label as another row's positive, `five` as its query."""
    labels = ("x", "x", "y")
    lines = [
        Row("q", ("zero",), label="x"),
        Row("five", ("one",), label="x"),
        Row("two", ("three",), label="y"),
    ]
    assert [row.label for row in lines] == list(labels)
    scores = {"base": ([[0.5, 0.4], [0.5, 0.4], [0.5, 0.4]], [1.0] * 3)}
    stage = {"rules": [{"kind": "same_label"}], "num_negatives": 6, "fill": "random"}
    kept = by_hand(tmp_path, lines, TEXTS, [[1, 2], [0, 3], [1, 4]], scores, stage)
    assert {frozenset(row.negatives) for row in kept[:2]} == {frozenset(("two", "three", "four"))}
    assert set(kept[2].negatives) == {"zero", "one", "four", "five"}


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
        ({"rules": [CEILING]}, "stage 'chosen': no column 'teacher'; "),
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
