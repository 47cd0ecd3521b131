"""The score stage: every teacher's column, pair by pair; kills, several processes, and what is refused."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from endpoint_server import score_of, serving
from exports import tiny_export
from scored_sources import RETRIEVER, score_context, write_mined
from test_model_cross_encoder import save_reranker
from tiny_models import save_tiny

from embedtrain.artifacts import WORK
from embedtrain.config.errors import UserError
from embedtrain.data.rows import write_rows
from embedtrain.mining import scoring, teachers
from embedtrain.mining.tables import SCORES, Column, read_columns, read_mined
from embedtrain.model.causal_lm import open_causal_lm, open_likelihood, open_yes_no
from embedtrain.model.cross_encoder import open_cross_encoder
from embedtrain.model.scorer import Scorer
from embedtrain.model.st import open_sentence_transformer
from embedtrain.places import FOLDER
from embedtrain.search import BM25Index
from embedtrain.stages import score

LIKELY = "{document}\nAsked: {query}"
ASKED = "{document}\nDoes this answer {query}? Say y or n:"
BM25 = {"kind": "bm25"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a tiny reranker, causal LM and embedder."""
    place = tmp_path_factory.mktemp("models")
    _, embedder = tiny_export(place)
    return {
        "reranker": str(save_reranker(place / "reranker")),
        "lm": str(save_tiny("llama", place / "lm", head=True)),
        "embedder": str(embedder),
    }


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "UNIT_PAIRS", 20)
    monkeypatch.setattr(teachers, "UNIT_COMPARISONS", 30)


def assert_scores(
    column: Column, made: tuple, scores_of: dict[tuple[str, str], float], first: int = 99
) -> None:
    """Each candidate among the first, and each positive, has the score of its own pair; the others none."""
    rows, documents, mined = made
    for line, number in enumerate(mined.query_row_Q.tolist()):
        row = rows[number]
        for place, id in enumerate(mined.ids_QK[line].tolist()):
            score = column.score_QK[line, place]
            if id < 0 or place >= first:
                assert np.isnan(score)
            else:
                assert score == pytest.approx(scores_of[row.query, documents[id]], rel=1e-4, abs=1e-5)
        expected = [scores_of[row.query, text] for text in row.positives]
        np.testing.assert_allclose(column.positive_scores[line], expected, rtol=1e-4, atol=1e-5)


def all_pairs(made: tuple) -> list[tuple[str, str]]:
    rows, documents, _ = made
    return [(row.query, text) for row in rows for text in documents]


@pytest.mark.usefixtures("small_units")
def test_each_teacher_scores_pairs_as_it_does_alone(tmp_path: Path, models: dict[str, str]) -> None:
    made = write_mined(tmp_path)
    lm = open_causal_lm(models["lm"])
    alone: dict[str, Scorer] = {
        "cross_encoder": open_cross_encoder(models["reranker"], max_tokens=24),
        "likelihood": open_likelihood(lm, LIKELY),
        "asked": open_yes_no(lm, ASKED, "y", "n"),
    }
    context = score_context(
        tmp_path,
        "scored",
        [
            {"kind": "cross_encoder", "model": models["reranker"], "max_tokens": 24},
            {"kind": "likelihood", "model": models["lm"], "template": LIKELY},
            {
                "kind": "yes_no",
                "name": "asked",
                "model": models["lm"],
                "template": ASKED,
                "yes": "y",
                "no": "n",
            },
        ],
        first_candidates=3,
    )
    facts = score.run_stage(context)
    for name, source in made.items():
        columns = read_columns(context.folder, name, read_mined(tmp_path / "mined", name))
        assert list(columns) == list(alone)
        for column, scorer in alone.items():
            pairs = all_pairs(source)
            scores = dict(zip(pairs, scorer.score(pairs, 10_000).tolist(), strict=True))
            assert len(set(scores.values())) > len(scores) / 2
            assert_scores(columns[column], source, scores, first=3)
    assert facts["teachers"]["asked"]["units_made"] > 4
    assert facts["teachers"]["asked"]["units_found"] == 0
    assert sorted(path.name for path in context.folder.iterdir()) == [FOLDER, SCORES, WORK]


@pytest.mark.usefixtures("small_units")
def test_teachers_that_also_retrieve(tmp_path: Path, models: dict[str, str]) -> None:
    made = write_mined(tmp_path)
    context = score_context(
        tmp_path,
        "scored",
        [{"kind": "model", "model": models["embedder"]}, BM25, {"kind": "rows"}],
        ensembles=[{"kind": "mean", "name": "all", "of": ["model", RETRIEVER]}],
    )
    score.run_stage(context)
    embedder = open_sentence_transformer(models["embedder"])
    for name, source in made.items():
        rows, documents, mined = source
        columns = read_columns(context.folder, name, read_mined(tmp_path / "mined", name))
        queries = embedder.encode([row.query for row in rows], side="query")
        cosines = queries @ embedder.encode(documents, side="document").T
        words = BM25Index(documents)
        everything = np.arange(len(documents))
        expected = {
            "model": cosines,
            "bm25": np.array([words.scores(row.query, everything) for row in rows]),
            "rows": [
                [
                    0.5 if text in row.positives else 0.25 if text in row.negatives else np.nan
                    for text in documents
                ]
                for row in rows
            ],
        }
        for column, matrix in expected.items():
            flat = [float(value) for line in matrix for value in line]
            scores = dict(zip(all_pairs(source), flat, strict=True))
            if column == "rows":
                pick = np.isnan(columns["rows"].score_QK) & (mined.ids_QK >= 0)
                assert pick.any()
                assert not pick[mined.ids_QK >= 0].all()
                columns["rows"].score_QK[pick] = -1
                scores = {pair: -1 if np.isnan(value) else value for pair, value in scores.items()}
            assert_scores(columns[column], source, scores)
        assert np.isfinite(columns["all"].score_QK).sum() == (mined.ids_QK >= 0).sum()


def test_a_reranker_behind_http(tmp_path: Path) -> None:
    made = write_mined(tmp_path)
    with serving() as server:
        judge = server.judge("tei", gives="scores").model_dump(exclude_none=True)
        context = score_context(tmp_path, "scored", [judge])
        score.run_stage(context)
    for name, source in made.items():
        columns = read_columns(context.folder, name, read_mined(tmp_path / "mined", name))
        scores = {pair: score_of(*pair) for pair in all_pairs(source)}
        assert_scores(columns["endpoint"], source, scores)


@pytest.mark.usefixtures("small_units")
def test_a_killed_stage_goes_on_to_the_same_bytes(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mined(tmp_path)
    named = [{"kind": "cross_encoder", "model": models["reranker"]}, BM25]
    whole = score_context(tmp_path, "whole", named)
    total = score.run_stage(whole)["teachers"]["cross_encoder"]["units_made"]
    killed = score_context(tmp_path, "killed", named)
    write, made = scoring.Units.write, []

    def write_three(units: scoring.Units, *args: object) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        write(units, *args)
        made.append(args[0])

    monkeypatch.setattr(scoring.Units, "write", write_three)
    with pytest.raises(KeyboardInterrupt):
        score.run_stage(killed)
    monkeypatch.setattr(scoring.Units, "write", write)
    facts = score.run_stage(killed)["teachers"]
    assert facts["cross_encoder"]["units_found"] == 3
    assert facts["cross_encoder"]["units_made"] == total - 3 > 3
    assert facts["bm25"]["units_found"] == 0
    assert (killed.folder / SCORES).read_bytes() == (whole.folder / SCORES).read_bytes()


@pytest.mark.usefixtures("small_units")
def test_a_table_that_is_whole_is_not_made_again(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mined(tmp_path)
    context = score_context(tmp_path, "scored", [{"kind": "cross_encoder", "model": models["reranker"]}])
    before = score.run_stage(context)["sources"]
    written = {path: path.stat().st_mtime_ns for path in context.folder.rglob("*")}
    assert context.folder / WORK / "units" in written
    monkeypatch.setattr(teachers, "PAIR_MODELS", {"cross_encoder": pytest.fail})
    assert score.run_stage(context)["sources"] == before
    assert {path: path.stat().st_mtime_ns for path in context.folder.rglob("*")} == written


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_writes_the_same_bytes(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    write_mined(tmp_path)
    named = [{"kind": "cross_encoder", "model": models["reranker"]}, BM25]
    ensembles = [{"kind": "rrf", "name": "both", "of": ["cross_encoder", "bm25"]}]
    alone = score_context(tmp_path, "alone", named, ensembles=ensembles)
    score.run_stage(alone)
    shared = score_context(tmp_path, "shared", named, num_processes=world, ensembles=ensembles)
    monkeypatch.setenv("WORLD_SIZE", str(world))
    left, units = [], []
    for rank in reversed(range(world)):  # as if the first came last, and found what all others made
        monkeypatch.setenv("RANK", str(rank))
        facts = score.run_stage(shared)
        left.append(facts == {})
        units.append(len(list(shared.folder.glob("work/units/*/cross_encoder/*.npy"))))
    assert left == [True] * (world - 1) + [False]
    assert 0 < units[0] <= units[-2]
    assert len(set(units)) == world  # each made some
    assert facts["teachers"]["cross_encoder"]["units_made"] == units[-1]
    assert facts["teachers"]["cross_encoder"]["units_found"] == 0
    assert (shared.folder / SCORES).read_bytes() == (alone.folder / SCORES).read_bytes()


def test_units_are_cut_by_pairs_alone(tmp_path: Path) -> None:
    write_mined(tmp_path)
    context = score_context(tmp_path, "scored", [BM25])
    candidates = score.open_candidates(context, context.stage, "one")
    units = scoring.Units(tmp_path, candidates, 20)
    edges = [(rows.start, rows.stop) for rows in units.slices]
    assert edges[0][0] == 0
    assert edges[-1][1] == len(candidates.pairs_Q)
    assert all(end == start for (_, end), (start, _) in pairwise(edges))
    assert max(map(units.num_pairs, range(len(edges)))) < 20 + candidates.pairs_Q.max()
    assert sum(map(units.num_pairs, range(len(edges)))) == candidates.pairs_Q.sum()


def test_rows_that_changed_are_refused(tmp_path: Path) -> None:
    made = write_mined(tmp_path)
    write_rows(tmp_path / "two.parquet", made["two"][0][:9])
    context = score_context(tmp_path, "scored", [BM25])
    with pytest.raises(
        UserError, match=r"9 rows, but stage 'mined' mined row number 22; the file has changed"
    ):
        score.run_stage(context)


def test_how_often_a_teacher_puts_the_positives_first(tmp_path: Path) -> None:
    write_mined(tmp_path)
    context = score_context(tmp_path, "scored", [BM25])
    candidates = score.open_candidates(context, context.stage, "one")
    mined, own = candidates.mined, candidates.positive_ids
    is_own_QK = np.array([np.isin(ids, known) for ids, known in zip(mined.ids_QK, own, strict=True)])
    scores = np.where(is_own_QK, 1.0, 0.0).astype(np.float32)
    right = Column(scores, [np.ones(len(known), np.float32) for known in own])
    with_others = (~is_own_QK & (mined.ids_QK >= 0)).any(axis=1)
    assert with_others.sum() > 5
    assert scoring.column_facts(candidates, right)["positives_first_fraction"] == 1.0
    row = int(np.flatnonzero(with_others)[0])
    right.positive_scores[row][0] = 0.0
    expected = round(1 - 1 / with_others.sum(), 4)
    assert scoring.column_facts(candidates, right)["positives_first_fraction"] == expected
