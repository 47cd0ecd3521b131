"""The select stage on candidates and scores written by hand: soft labels, promotion, filling, labels."""

from math import nan
from pathlib import Path

import numpy as np
import pytest
from judged_sources import write_tables
from mined_sources import context_of, make_run

from embedtrain.artifacts import read_json
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import open_rows
from embedtrain.mining.tables import Column, Mined
from embedtrain.stages import select


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
    ranks = np.tile(np.arange(1, len(ids[0]) + 1, dtype=np.int32), (len(ids), 1))
    mined = Mined(np.arange(len(ids)), np.array(ids), ranks, {"base": columns["base"]})
    write_tables(context.inputs["mined"], folder / "taught", {"one": (mined, columns, texts)})
    select.run_stage(context)
    return list(open_rows(context.folder / "rows" / "one"))


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


def test_texts_of_the_same_label_are_refused_and_never_fill(tmp_path: Path) -> None:
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
