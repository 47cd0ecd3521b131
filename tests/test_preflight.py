"""What a training refuses before it starts: rows that lack what a term asks, and dims that do not fit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import pytest
from taught_sources import BARE, FULL, make_run, stage_of

from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.data.store import RowStore, store_rows
from embedtrain.stages.preflight import row_faults, teacher_dim_faults, view_faults


def told(tmp_path: Path, terms: list[dict], sources: dict[str, dict] | None = None, **stage: object) -> list:
    run = make_run(tmp_path, terms, sources, **stage)
    rows = {"bare": BARE, "full": FULL}
    return list(row_faults(run, stage_of(run), {name: stored(tmp_path, rows[name]) for name in run.sources}))


def stored(folder: Path, rows: list[Row]) -> Callable[[], RowStore]:
    return lambda: store_rows(rows, Path(mkdtemp(dir=folder)) / "store")


# --- rows ---------------------------------------------------------------------------------------------------

LACKS = {
    "no scores": (
        {"kind": "distill_kl"},
        "no row has two candidates to compare; give the rows negatives and set num_negatives",
    ),
    "no negatives": (
        {"kind": "margin_mse", "teacher": "vectors"},
        "no row has negatives, and their margin to the positive is what is learned",
    ),
    "no grades": ({"kind": "cosent"}, "no two rows have different grades; expected numbers under 'score'"),
    "no label": (
        {"kind": "infonce", "masks": [{"kind": "same_text"}, {"kind": "same_label"}]},
        "masks[1] (same_label): no row has a class; expected text under 'label'",
    ),
    "no scored negatives": (
        {"kind": "sigmoid", "masks": [{"kind": "teacher_relevant", "threshold": 0.5}]},
        "masks[0] (teacher_relevant): no row has scored negatives; expected numbers under 'negative_scores'",
    ),
    "nothing to tell from": (
        {"kind": "infonce", "in_batch_positives": False},
        "no row has negatives, and nothing else is told from the positive; "
        "give the rows negatives, or switch in_batch_positives on",
    ),
    "nothing to mix": (
        {"kind": "infonce", "mixing": [{"kind": "pair"}]},
        "mixing[0] (pair): no row has two negatives to mix",
    ),
    "nothing to learn": (
        {"kind": "embed_distill", "queries": False, "positives": False},
        "no row has negatives, and nothing else is learned; switch queries or positives on",
    ),
}


@pytest.mark.parametrize("name", LACKS)
def test_what_no_row_of_a_source_has_is_told_by_term_and_source(name: str, tmp_path: Path) -> None:
    """The source `full` has it all, and nothing is said of it."""
    term, text = LACKS[name]
    place = f"stages 'tune' > objective.terms[0] ({term['kind']}), source 'bare'"
    assert told(tmp_path, [term]) == [f"{place}: {text}"]
    assert told(tmp_path, [term | {"sources": ["full"]}]) == []


def test_one_row_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path, [{"kind": "margin_mse"}], {"bare": {}})
    faults = partial(row_faults, run, stage_of(run))
    assert list(faults({"bare": stored(tmp_path, [*BARE, FULL[0]])})) == []
    assert len(list(faults({"bare": stored(tmp_path, BARE)}))) == 1


def test_negatives_without_scores_are_told_apart_from_no_negatives(tmp_path: Path) -> None:
    run = make_run(tmp_path, [{"kind": "margin_mse"}, {"kind": "distill_ce"}], {"bare": {}})
    rows = [Row("q", ("p",), ("n",), positive_scores=(1.0,))]
    text = (
        "source 'bare': no row has teacher scores of two of its candidates; "
        "expected numbers under 'positive_scores' and 'negative_scores'"
    )
    faults = row_faults(run, stage_of(run), {"bare": stored(tmp_path, rows)})
    assert [fault.split(", ", 1)[1] for fault in faults] == [text, text]


def test_a_column_that_rows_cannot_have(tmp_path: Path) -> None:
    terms = [
        {"kind": "distill_kl", "teacher": "bm25"},
        {"kind": "infonce", "masks": [{"kind": "teacher_relevant", "teacher": "bm25", "threshold": 0}]},
    ]
    place = "stages 'tune' > objective.terms"
    text = "no row has teacher scores 'bm25'; known: scores, vectors"
    assert told(tmp_path, terms, {"full": {}}) == [
        f"{place}[0] (distill_kl), source 'full': {text}",
        f"{place}[1] (infonce), source 'full': masks[0] (teacher_relevant): {text}",
    ]


def test_two_positives_are_candidates_to_compare(tmp_path: Path) -> None:
    assert told(tmp_path, [{"kind": "distill_kl"}], {"full": {}}, num_negatives=0) == []


def test_a_sources_switches_count(tmp_path: Path) -> None:
    off = {"blocks": {"in_batch_positives": False}}
    assert len(told(tmp_path, [{"kind": "infonce"}], {"bare": off})) == 1
    assert told(tmp_path, [{"kind": "infonce"}], {"full": off}) == []


def test_rows_are_not_read_where_no_term_asks(tmp_path: Path) -> None:
    run = make_run(tmp_path, [{"kind": "infonce"}, {"kind": "spread"}])

    def read() -> RowStore:
        raise AssertionError("read")

    assert list(row_faults(run, stage_of(run), {"bare": read})) == []


# --- dims ---------------------------------------------------------------------------------------------------


def test_views_wider_than_the_model(tmp_path: Path) -> None:
    terms = [{"kind": "spread"}, {"kind": "spread", "matryoshka": {"dims": [64, 8]}}]
    stage = stage_of(make_run(tmp_path, terms))
    assert list(view_faults(stage, 64)) == []
    wide = Train.model_validate(
        stage.model_dump(by_alias=True) | {"objective": {"terms": terms, "matryoshka": {"dims": [48, 32]}}}
    )
    assert list(view_faults(wide, 32)) == [
        "stages 'tune' > objective.matryoshka.dims: found 48, and the model's vectors have 32 dims",
        "stages 'tune' > objective.terms[1] (spread) > matryoshka.dims: found 64, "
        "and the model's vectors have 32 dims",
    ]


def test_vectors_of_other_dims_need_a_projection(tmp_path: Path) -> None:
    terms = [
        {"kind": "embed_distill"},
        {"kind": "embed_distill", "projection": True},
        {"kind": "embed_distill", "matryoshka": {"dims": [16, 8]}},
    ]
    stage = stage_of(make_run(tmp_path, terms, teacher={"model": "taught"}))
    assert list(teacher_dim_faults(stage, 32, 32)) == []
    assert list(teacher_dim_faults(stage, 32, 64)) == [
        "stages 'tune' > objective.terms[0] (embed_distill): the teacher's vectors have 64 dims, "
        "and 32 of the model's 32 are to learn them; set projection: true"
    ]
    assert len(list(teacher_dim_faults(stage, 32, 8))) == 2
