"""The filter stage: each rule against a slow count, what is written, and what is refused."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from audited_rows import new_folder, sources, store_all
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.config.stages import Filter
from embedtrain.data.audit.examined import examine
from embedtrain.data.audit.faults import FAULTS
from embedtrain.data.audit.words import fold, split_words
from embedtrain.data.filters import RULES, count_removed, judge_rows, kept_rows
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import open_rows
from embedtrain.stages import filter as filter_stage
from embedtrain.stages.context import StageContext, stage_rows

OFF = {
    "exact_duplicates": False,
    "query_is_positive": False,
    "false_negatives": False,
    "control_characters": False,
}
ENGLISH = "The library reads files of many kinds and writes them again without a loss."
FRENCH = "La bibliothèque lit des fichiers de toutes sortes et les écrit de nouveau sans perte."


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


def rules(**given: object) -> Filter:
    return Filter.model_validate({"name": "clean", "kind": "filter", **OFF, **given})


def make_context(folder: Path, sources: dict[str, Sequence[Row]], **given: object) -> StageContext:
    """The sources on disk and a run that filters them."""
    for name, made in sources.items():
        write_rows(folder / f"{name}.parquet", list(made))
    run = Run.model_validate(
        {
            "name": "r",
            "base": {"model": "none"},
            "sources": {name: {"rows": str(folder / f"{name}.parquet")} for name in sources},
            "stages": [{"name": "clean", "kind": "filter", **given}],
        }
    )
    (folder / "clean").mkdir(exist_ok=True)
    return StageContext(run, run.stages[0], Machine(), folder / "clean", {})


@settings(max_examples=150, deadline=None)
@given(
    sources,
    st.fixed_dictionaries({name: st.booleans() for name in OFF}),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_rules_leave_what_a_slow_filter_leaves(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[list[Row]],
    switches: dict[str, bool],
    min_query_words: int,
    min_positive_words: int,
) -> None:
    stage = rules(**switches, min_query_words=min_query_words, min_positive_words=min_positive_words)
    examined = examine(store_all(made, new_folder(tmp_path_factory)))
    judgment = judge_rows(examined, stage)
    kept = [list(kept_rows(examined, judgment, number)) for number in range(len(made))]
    assert kept == slow_filter(made, stage)
    for number, part in enumerate(made):
        counts = count_removed(examined, judgment, number)
        assert counts["rows"] == len(part)
        assert counts["kept"] + sum(counts["removed"].values()) == len(part)
        assert counts["kept"] == len(kept[number])


def slow_filter(made: Sequence[Sequence[Row]], stage: Filter) -> list[list[Row]]:
    """Row by row, in the order of the rules."""
    positive = {(fold(row.query), fold(text)) for part in made for row in part for text in row.positives}
    seen: set[tuple[str, str]] = set()
    kept: list[list[Row]] = []
    for part in made:
        kept.append([])
        for row in part:
            texts = (row.query, *row.positives, *row.negatives)
            long = tuple(t for t in row.positives if len(split_words(t)) >= stage.min_positive_words)
            pairs = {(fold(row.query), fold(text)) for text in row.positives}
            if (
                (stage.control_characters and any("\x00" in t or "\ufffd" in t for t in texts))
                or len(split_words(row.query)) < stage.min_query_words
                or not long
                or (stage.query_is_positive and fold(row.query) in {fold(t) for t in row.positives})
            ):
                continue
            new = pairs - seen
            seen |= pairs
            if stage.exact_duplicates and not new:
                continue
            own = {fold(text) for text in row.positives}
            negatives = tuple(
                text
                for text in row.negatives
                if not (
                    stage.false_negatives and (fold(text) in own or (fold(row.query), fold(text)) in positive)
                )
            )
            kept[-1].append(Row(row.query, long, negatives))
    return kept


def test_scores_stay_with_their_texts(tmp_path: Path) -> None:
    made = Row(
        "two words", ("one", "two of them"), ("ONE ", "x", "y"), (0.5, 0.9), (0.4, 0.3, 0.2), label="l"
    )
    examined = examine(store_all([[made]], tmp_path))
    judgment = judge_rows(examined, rules(false_negatives=True, min_positive_words=2))
    assert list(kept_rows(examined, judgment, 0)) == [
        Row("two words", ("two of them",), ("x", "y"), (0.9,), (0.3, 0.2), label="l")
    ]
    counts = count_removed(examined, judgment, 0)
    assert (counts["positives_removed"], counts["negatives_removed"]) == (1, 1)


def test_the_stage_writes_rows_that_later_stages_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [Row(f"query {i}", (f"the answer {i}",), label=str(i % 2)) for i in range(5)]
    two = [Row("Query 3", ("The answer 3",)), Row("bad \x00", ("y",)), Row("fresh", ("new",), ("worse",))]
    context = make_context(tmp_path, {"one": one, "two": two})
    facts = filter_stage.run_stage(context)
    assert list(open_rows(stage_rows(context.folder, "one"))) == one
    assert list(open_rows(stage_rows(context.folder, "two"))) == two[2:]
    removed = read_json(context.folder / "removed.json")
    assert facts == {"sources": removed}
    assert {rule: n for rule, n in removed["two"]["removed"].items() if n} == {
        "exact_duplicates": 1,
        "control_characters": 1,
    }
    assert (removed["one"]["kept"], removed["two"]["kept"]) == (5, 1)
    printed = capsys.readouterr().out
    assert "control characters" in printed
    assert "near duplicates" not in printed, "a rule that removed nothing needs no column"
    filter_stage.run_stage(context)  # as after a kill: what the first attempt wrote is replaced
    assert read_json(context.folder / "removed.json") == removed


def test_rows_that_touch_test_data_go(tmp_path: Path) -> None:
    made = [
        Row("how to read a file", ("open it",)),
        Row("unseen", ("thing",)),
        Row("faq", ("How to: print",)),
    ]
    write_rows(tmp_path / "held_out.jsonl.parquet", [Row("how to print", ("see how to read a file now",))])
    given = {"test_data": [str(tmp_path / "held_out.jsonl.parquet")], "ngram_words": 4}
    context = make_context(tmp_path, {"s": made}, **given)
    filter_stage.run_stage(context)
    assert [row.query for row in open_rows(stage_rows(context.folder, "s"))] == ["unseen"]
    assert read_json(context.folder / "removed.json")["s"]["removed"]["test_data"] == 2


def test_near_duplicates_go(tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(40))
    made = [Row("what is it", (long,)), Row("what is that", (long + " more",)), Row("else", ("other",))]
    context = make_context(tmp_path, {"s": made}, near_duplicates=0.8)
    filter_stage.run_stage(context)
    assert [row.query for row in open_rows(stage_rows(context.folder, "s"))] == ["what is it", "else"]


def test_languages_are_kept_where_the_detector_is_sure(tmp_path: Path) -> None:
    made = [Row(ENGLISH, ("short",)), Row(FRENCH, (ENGLISH,)), Row("hm", (FRENCH,)), Row("hm", ("ah",))]
    examined = examine(store_all([made, [made[1]]], tmp_path))
    judgment = judge_rows(examined, rules(languages=["en"]))
    assert judgment.rows_N.tolist() == [True, False, False, True, False]
    assert judge_rows(examined, rules(languages=["en", "fr"])).rows_N.all()


def test_a_source_without_rows_left_is_refused(tmp_path: Path) -> None:
    made = [Row("a", ("b",)), Row("a few more words", ("b",))]
    context = make_context(tmp_path, {"s": made}, min_query_words=9)
    with pytest.raises(
        UserError, match=r"'clean': its rules leave none of the 2 rows of source 's'; min_que"
    ):
        filter_stage.run_stage(context)
    assert not (context.folder / "rows").exists()


def test_nothing_is_removed_where_every_rule_is_off(tmp_path: Path) -> None:
    made = [Row("a\x00", ("A\x00",), ("b",))] * 2 + [Row("a\x00", ("b",))]
    examined = examine(store_all([made], tmp_path))
    judgment = judge_rows(examined, rules())
    assert judgment.rows_N.all()
    assert judgment.negatives_Q.all()
    assert list(kept_rows(examined, judgment, 0)) == made


def test_the_page_tells_of_every_fault_and_rule() -> None:
    page = (Path(__file__).parents[1] / "docs" / "audit.md").read_text()
    table = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")][2:]
    assert table == [fault.heading for fault in FAULTS.values()]
    order = re.search(r"counted at the first that removes it:\n(.*?)\. Of the rows", page, re.DOTALL)
    assert order is not None
    assert re.findall(r"`(\w+)`", order[1]) == list(RULES)
    example = yaml.safe_load(page.split("```yaml")[1].split("```")[0])["stages"][0]
    assert Filter.model_validate(example).near_duplicates == 0.8
