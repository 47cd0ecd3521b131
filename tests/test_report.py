"""What a selection tells: reasons.json, the page and the terminal, from tables written by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
from judged_sources import make_rows, select_by_hand

from embedtrain.artifacts import read_json
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows
from embedtrain.mining.report.source import first_listed
from embedtrain.mining.tables import read_columns, read_corpus, read_mined
from embedtrain.show.page import Neighbour, Neighbours, Section, render_page
from embedtrain.show.plots import PALETTE, histogram_plot

RULES = [{"kind": "perc_pos"}, {"kind": "teacher_ceiling", "judge": "teacher", "ceiling": 5.5}]
STAGE = {"rules": RULES, "num_negatives": 3, "require_positive_in_top": 11}


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Row]]]:
    folder = tmp_path_factory.mktemp("report")
    sources = {"one": make_rows(60, 0), "two": make_rows(30, 1)}
    select_by_hand(folder, sources, STAGE)
    return folder, sources


def columns_of(folder: Path, name: str) -> tuple:
    mined = read_mined(folder / "dense", name)
    columns = mined.columns | read_columns(folder / "taught", name, mined)
    return mined, columns, read_corpus(folder / "dense", name)[1]


def test_reasons_hold_counts_and_scores(selected: tuple) -> None:
    folder, sources = selected
    reasons = read_json(folder / "chosen" / "reasons.json")
    assert list(reasons) == sorted(sources)
    for name, rows in sources.items():
        found = reasons[name]
        mined, columns, texts = columns_of(folder, name)
        kept = {row.query: row.negatives for row in open_rows(folder / "chosen" / "rows" / name)}
        dropped = [row.query for row in rows if row.query not in kept]
        assert found["rows"]["dropped"] == len(dropped) > 0
        num_kept = sum(map(len, kept.values()))
        assert found["candidates"]["kept"] == num_kept > 0
        assert {"perc_pos", "teacher_ceiling"} <= set(found["candidates"])
        for column, scores in columns.items():
            before, after, above, positives = [], [], 0, []
            for number, row in enumerate(rows):
                lowest = scores.positive_scores[number].min()
                positives += scores.positive_scores[number].tolist()
                for k, id in enumerate(mined.ids_QK[number]):
                    score = float(scores.score_QK[number, k])
                    before += [] if texts[id] in row.positives else [score]
                    if texts[id] in kept.get(row.query, ()):
                        after.append(score)
                        above += score >= lowest
            told = found["scores"][column]
            for part, values in (
                ("positives_before", positives),
                ("candidates_before", before),
                ("negatives_after", after),
            ):
                assert sum(told[part]["counts"]) == len(values)
                assert told[part]["mean"] == pytest.approx(np.mean(values))
            assert sum(told["positives_after"]["counts"]) < len(positives)
            assert told["above_after"] == above
        assert found["scores"]["base"]["above_after"] == 0  # perc_pos lets none above the positive
        assert found["scores"]["teacher"]["above_after"] > 0
        (agreement,) = found["agreement"]
        assert (agreement["first"], agreement["second"]) == ("base", "teacher")
        assert 0 < agreement["kendall"] < 1
        assert 0 < agreement["jaccard"] < 1


def test_suspects_are_the_worst_and_worst_first(selected: tuple) -> None:
    """Slow: every kept negative by every column, in the column's deviations above the lowest positive."""
    folder, sources = selected
    name, rows = next(iter(sources.items()))
    found = read_json(folder / "chosen" / "reasons.json")[name]["suspects"]
    mined, columns, texts = columns_of(folder, name)
    kept = {row.query: row.negatives for row in open_rows(folder / "chosen" / "rows" / name)}
    worst: dict[int, tuple[float, str, str]] = {}
    num_above = 0
    for number, row in enumerate(rows):
        for k, id in enumerate(mined.ids_QK[number]):
            if texts[id] not in kept.get(row.query, ()):
                continue
            excess = {
                column: float(scores.score_QK[number, k] - scores.positive_scores[number].min())
                / float(scores.score_QK.astype(np.float64).std())
                for column, scores in columns.items()
            }
            column = max(excess, key=lambda name: excess[name])
            num_above += excess[column] >= 0
            if number not in worst or excess[column] > worst[number][0]:
                worst[number] = (excess[column], column, texts[id])
    assert found["kept_above_positive"] == num_above > 0
    expected = sorted(worst.items(), key=lambda item: -item[1][0])[:20]
    assert [(one["row"], one["column"], one["candidate"]) for one in found["kept"]] == [
        (number, column, text) for number, (_, column, text) in expected
    ]
    assert [one["excess"] for one in found["kept"]] == pytest.approx(
        [e for _, (e, _, _) in expected], rel=1e-5
    )
    for one in found["kept"]:
        assert one["reason"] == "kept"
        assert one["query"] == rows[one["row"]].query
        assert one["positive"] in rows[one["row"]].positives
        assert set(one["scores"]) == set(one["positive_scores"]) == {"base", "teacher"}


def test_refused_suspects_are_those_of_rules_by_the_teachers(selected: tuple) -> None:
    folder, sources = selected
    for name in sources:
        refused = read_json(folder / "chosen" / "reasons.json")[name]["suspects"]["refused"]
        assert {one["reason"] for one in refused} <= {"perc_pos", "teacher_ceiling"}
        assert {one["column"] for one in refused} == {"teacher"}
        excess = [one["excess"] for one in refused]
        assert excess == sorted(excess, reverse=True)
        assert len({one["row"] for one in refused}) == len(refused) > 3


def test_the_page_shows_all_and_loads_nothing(selected: tuple) -> None:
    folder, sources = selected
    page = (folder / "chosen" / "mining.html").read_text()
    assert "<h2>two</h2>" in page
    assert page.count("<svg") == 1 + 2 * len(sources)  # what became of them, and two columns a source
    for title in ("Candidates", "Rows", "Scores", "Suspected false negatives", "Agreement", "What was asked"):
        assert f"<h2>{title}</h2>" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert not re.search(r"""(src|href)=["']?https?:|@import|url\(http""", page)
    found = read_json(folder / "chosen" / "reasons.json")["one"]
    worst = found["suspects"]["kept"][0]
    assert worst["query"] in page
    assert f"Row {worst['row']}, {worst['excess']:.1f} deviations above" in page
    assert f"<h4>refused by {found['suspects']['refused'][0]['reason']}</h4>" in page
    assert "negatives stay below 0." in page
    assert len(re.findall(r"Row \d+, scores by base", page)) == 5 * len(sources)
    assert "fraction: 0.95" in page  # what was asked, defaults too
    assert "same_as_positive, rank " in page


def test_the_same_selection_writes_the_same_page(selected: tuple, tmp_path: Path) -> None:
    folder, sources = selected
    select_by_hand(tmp_path, sources, STAGE)
    for name in ("mining.html", "reasons.json"):
        assert (tmp_path / "chosen" / name).read_bytes() == (folder / "chosen" / name).read_bytes()


def test_the_terminal_says_what_the_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, facts = select_by_hand(tmp_path, {"one": make_rows(40, 3)}, STAGE)
    said = capsys.readouterr().out
    for title in ("Selected: candidates", "Selected: rows", "Mean scores", "Agreement of the columns"):
        assert title in said
    reasons = read_json(tmp_path / "chosen" / "reasons.json")["one"]
    counts = facts["sources"]["one"]
    assert counts == {part: reasons[part] for part in ("candidates", "rows")}
    (line,) = re.findall(r"Suspected false negatives *\n.*\n.*\n.*\n *one +([\d,]+) +([\d,]+) ", said)
    assert line == (f"{counts['candidates']['kept']:,}", f"{reasons['suspects']['kept_above_positive']:,}")
    assert "not scored" not in said  # a reason that nothing met has no column


def test_a_source_without_negatives_is_told_too(tmp_path: Path) -> None:
    """A bound that nothing passes: no kept scores, no kept suspects, and still a page."""
    rules = {"rules": [{"kind": "absolute", "ceiling": -9}], "num_negatives": 3}
    select_by_hand(tmp_path, {"one": make_rows(20, 0)}, rules)
    found = read_json(tmp_path / "chosen" / "reasons.json")["one"]
    assert found["suspects"]["kept"] == []
    assert found["suspects"]["kept_above_positive"] == 0
    assert found["scores"]["base"]["negatives_after"]["mean"] is None
    assert len(found["suspects"]["refused"]) == 20
    assert "kept as negative" not in (tmp_path / "chosen" / "mining.html").read_text()


def test_promoted_and_random_texts_are_shown_as_such(tmp_path: Path) -> None:
    rules = [{"kind": "teacher_ceiling", "judge": "teacher", "ceiling": 3.0, "promote": True}]
    stage = {"rules": rules, "num_negatives": 9, "last_rank": 9, "fill": "random"}
    select_by_hand(tmp_path, {"one": make_rows(30, 0)}, stage)
    page = (tmp_path / "chosen" / "mining.html").read_text()
    reasons = {
        one["reason"] for one in read_json(tmp_path / "chosen" / "reasons.json")["one"]["suspects"]["refused"]
    }
    assert reasons == {"promoted"}
    assert "made a positive" in page
    assert "<small>promoted, rank " in page
    assert "<small>random</small>" in page


def test_the_first_of_equal_keys_is_listed() -> None:
    keys_QK = np.array([[5, 3, 5, 3, 9], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5]])
    expected = [[key not in line[:k] for k, key in enumerate(line)] for line in keys_QK.tolist()]
    assert first_listed(keys_QK).tolist() == expected
    assert first_listed(keys_QK[:, :0]).shape == (3, 0)


def test_a_histogram_draws_each_group_in_one_colour() -> None:
    edges = [0.0, 0.5, 1.0]
    before_and_after = {"before": [3, 1], "after": [1, 0]}
    svg = histogram_plot(edges, [before_and_after, {"other": [0, 2], "none": [0, 0]}], "Scores", "by x")
    assert svg == histogram_plot(
        edges, [before_and_after, {"other": [0, 2], "none": [0, 0]}], "Scores", "by x"
    )
    assert [name for name in ("before", "after", "other", "none", "by x", "100%") if f">{name}<" in svg] == [
        "before", "after", "other", "by x", "100%"
    ]  # fmt: skip
    assert PALETTE[0] in svg
    assert PALETTE[1] in svg
    assert PALETTE[2] not in svg
    for groups in ([{"before": [1, 2, 3]}], [{"before": [0, 0]}], []):
        with pytest.raises(ValueError, match="one for each of the 2 bins"):
            histogram_plot(edges, groups, "Scores")


def test_neighbours_may_have_notes_remarks_and_no_score() -> None:
    block = Neighbours("q", [("m", [Neighbour("a", None, note="<i>"), Neighbour("b", -1.5)])], "all of <it>")
    page = render_page("t", [Section("s", [block])])
    assert '<span class="score">—</span>a<small>&lt;i&gt;</small></li>' in page
    assert '<span class="score">-1.50</span>b</li>' in page
    assert '<p class="quiet">all of &lt;it&gt;</p>' in page
