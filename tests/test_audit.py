"""The audit: every fault against a slow and obvious count."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from audited_rows import new_folder, sources, store_all, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.data.audit.contamination import TestText, index_test_texts, longest_shared_run
from embedtrain.data.audit.duplicates import near_duplicates
from embedtrain.data.audit.examined import examine
from embedtrain.data.audit.faults import FAULTS, find_faults
from embedtrain.data.audit.languages import detect_language
from embedtrain.data.audit.licences import read_licence
from embedtrain.data.audit.sample import draw_rows, measure_lengths, split_sample
from embedtrain.data.audit.signatures import band_size
from embedtrain.data.audit.words import fold, grams, hash_word, hash_words, split_words
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows
from embedtrain.stages.held_out import read_test_texts

SHIPPED = Path(__file__).parents[1] / "rows"


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


def texts_of(row: Row) -> tuple[str, ...]:
    return (row.query, *row.positives, *row.negatives)


# --- words -----------------------------------------------------------------------------------------------


def test_words_are_split_in_any_case_and_script() -> None:
    assert split_words("Don't STOP, Ｆｕｌｌ-width!") == ["don", "t", "stop", "full", "width"]
    assert split_words("私はGPUを買う") == ["私", "は", "gpu", "を", "買", "う"]
    assert split_words("… —!") == []
    assert fold("  A\tb\nC ") == fold("a B c") == "a b c"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5).map(" ".join), max_size=5), st.integers(1, 4))
def test_grams_are_runs_of_words(made: list[str], num_words: int) -> None:
    hashes, owner = grams(hash_words(made), num_words)
    slow = []
    for number, text in enumerate(made):
        split = text.split()
        runs = [split[i : i + num_words] for i in range(max(len(split) - num_words + 1, 1))] if split else []
        slow += [(number, tuple(run)) for run in runs]
    assert owner.tolist() == [number for number, _ in slow]
    by_run: dict[tuple[str, ...], set[int]] = {}
    for value, (_, run) in zip(hashes.tolist(), slow, strict=True):
        by_run.setdefault(run, set()).add(value)
    assert all(len(values) == 1 for values in by_run.values())
    assert len({value for values in by_run.values() for value in values}) == len(by_run)


def test_words_hash_the_same_in_every_process() -> None:
    assert hash_word("embedding") == 16983706247036139079


# --- faults ----------------------------------------------------------------------------------------------


def slow_faults(made: Sequence[Sequence[Row]]) -> dict[str, list[bool]]:
    """Each fault but near duplicates and test data, row by row."""
    flat = [row for part in made for row in part]
    known: dict[tuple[str, str], set[int]] = {}
    for number, row in enumerate(flat):
        for text in row.positives:
            known.setdefault((fold(row.query), fold(text)), set()).add(number)
    found: dict[str, list[bool]] = {name: [] for name in FAULTS}
    for number, row in enumerate(flat):
        pairs = [(fold(row.query), fold(text)) for text in row.positives]
        positives = {fold(text) for text in row.positives}
        asked = [(fold(row.query), fold(text)) for text in row.negatives]
        found["exact_duplicates"].append(all(min(known[pair]) < number for pair in pairs))
        found["query_is_positive"].append(fold(row.query) in positives)
        found["negative_is_positive"].append(any(fold(text) in positives for text in row.negatives))
        found["conflicts"].append(any(known.get(pair, set()) - {number} for pair in asked))
        found["control_characters"].append(any("\x00" in t or "\ufffd" in t for t in texts_of(row)))
        found["wordless"].append(any(not split_words(text) for text in texts_of(row)))
    return found


@settings(max_examples=150, deadline=None)
@given(sources)
def test_faults_are_those_of_a_slow_count(
    tmp_path_factory: pytest.TempPathFactory, made: list[list[Row]]
) -> None:
    folder = new_folder(tmp_path_factory)
    faults = find_faults(examine(store_all(made, folder), scratch=folder))
    for name, slow in slow_faults(made).items():
        if slow:
            assert (faults[name] != -1).tolist() == slow, name


def test_a_conflict_names_the_row_that_says_otherwise(tmp_path: Path) -> None:
    one = [Row("q", ("yes",)), Row("other", ("thing",))]
    two = [Row("Q ", ("maybe",), ("no", "YES")), Row("r", ("R", "s"), ("S ",))]
    faults = find_faults(examine(store_all([one, two], tmp_path), scratch=tmp_path))
    assert faults["conflicts"].tolist() == [-1, -1, 0, -1]
    assert faults["negative_is_positive"].tolist() == [-1, -1, -1, -2]
    assert faults["query_is_positive"].tolist() == [-1, -1, -1, -2]


# --- near duplicates -------------------------------------------------------------------------------------


def pair_set(text: str) -> set[tuple[str, ...]]:
    split = split_words(text)
    return {tuple(split[i : i + 2]) for i in range(max(len(split) - 1, 1))} if split else set()


@cache
def sides(row: Row) -> tuple[set[tuple[str, ...]], set[tuple[str, ...]]]:
    return pair_set(row.query), set().union(*map(pair_set, row.positives))


def slow_overlap(a: Row, b: Row) -> float:
    (query_a, rest_a), (query_b, rest_b) = sides(a), sides(b)
    if query_a == query_b:
        first, second = rest_a, rest_b
    elif rest_a == rest_b:
        first, second = query_a, query_b
    else:
        first, second = query_a | rest_a, query_b | rest_b
    return len(first & second) / len(first | second)


def altered(text: str, generator: np.random.Generator, share: float) -> str:
    """The text with a share of its words replaced."""
    split = text.split()
    return " ".join(f"new{generator.integers(10**6)}" if generator.random() < share else w for w in split)


def test_near_duplicates_are_found_and_no_others(tmp_path: Path) -> None:
    real = list(open_rows(SHIPPED / "pydoc" / "train.parquet")[:600])
    generator = np.random.default_rng(0)
    copies = [
        Row(altered(row.query, generator, 0.02), tuple(altered(p, generator, 0.05) for p in row.positives))
        for row in real[:200]
    ]
    flat = [*real, *copies]
    examined = examine(store_all([real, copies], tmp_path), scratch=tmp_path)
    found = near_duplicates(examined, np.ones(len(flat), dtype=bool))
    assert all(
        slow_overlap(flat[earlier], row) >= 0.8
        for row, earlier in zip(flat, found, strict=True)
        if earlier >= 0
    )
    slow = {
        later
        for earlier, later in combinations(range(len(flat)), 2)
        if slow_overlap(flat[earlier], flat[later]) >= 0.8
    }
    assert len(slow) > 100, "the copies are no near duplicates: the test shows nothing"
    missed = slow - set(np.flatnonzero(found >= 0).tolist())
    assert len(missed) <= 0.03 * len(slow)


def test_questions_about_one_document_are_no_near_duplicates(tmp_path: Path) -> None:
    document = " ".join(f"word{i}" for i in range(60))
    made = [
        Row("who wrote it and when", (document,)),
        Row("where does it grow", (document,)),
        Row("where does it really grow now then here again and so on", (document + " more",)),
        Row("Where does it grow?", (document,)),
    ]
    examined = examine(store_all([made], tmp_path), scratch=tmp_path)
    assert near_duplicates(examined, np.ones(4, dtype=bool)).tolist() == [-1, -1, 1, 1]
    assert near_duplicates(examined, np.array([True, False, False, True])).tolist() == [-1] * 4


@pytest.mark.parametrize(("threshold", "size"), [(0.95, 8), (0.8, 4), (0.5, 2), (0.05, 1)])
def test_bands_find_pairs_at_the_threshold(threshold: float, size: int) -> None:
    assert band_size(threshold) == size


def test_rensa_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UserError, match=re.escape("pip install 'embedtrain[audit]'")):
        examine(store_all([[Row("a", ("b",))]], tmp_path), scratch=tmp_path)


# --- test data -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(sources, st.lists(texts, max_size=4), st.integers(1, 3))
def test_contamination_is_a_shared_run_of_words(
    tmp_path_factory: pytest.TempPathFactory, made: list[list[Row]], tested: list[str], num_words: int
) -> None:
    index = index_test_texts([TestText("t", "text", text) for text in tested], num_words)
    examined = examine(store_all(made, new_folder(tmp_path_factory)), test=index)

    def runs(text: str) -> set[tuple[str, ...]]:
        split = split_words(text)
        places = range(max(len(split) - num_words + 1, 1))
        return {tuple(split[i : i + num_words]) for i in places} if split else set()

    test_runs = [runs(text) for text in tested]
    flat = [row for part in made for row in part]
    for row, found in zip(flat, examined.test_text_N.tolist(), strict=True):
        touching = [i for i, one in enumerate(test_runs) if any(one & runs(t) for t in texts_of(row))]
        assert (found >= 0) == bool(touching)
        assert found == -1 or found in touching
    for part, seen in zip(made, examined.seen, strict=True):
        all_runs = set().union(*(runs(text) for row in part for text in texts_of(row)))
        expected = sum(bool(one & all_runs) for one in test_runs)
        assert sum(index.count_touched(seen).values()) == expected
        short = sum(
            bool(one & all_runs) and len(split_words(text)) < num_words
            for text, one in zip(tested, test_runs, strict=True)
        )
        assert sum(index.count_touched(seen, short=True).values()) == short


def test_the_longest_shared_run_is_shown() -> None:
    assert longest_shared_run(["x a b c", "A, b: c d!"], "so a B c d e") == "a b c d"
    assert longest_shared_run(["x"], "y") == ""


def test_test_texts_are_those_of_every_kind_of_task() -> None:
    found = Counter((text.task, text.side) for text in read_test_texts([SHIPPED / "tests"]))
    assert found["faq", "query"] == 474
    assert found["faq", "document"] == 475
    assert found["bible", "text"] == found["bible", "paired text"] == 393


# --- samples ---------------------------------------------------------------------------------------------


def test_a_sample_takes_small_sources_whole() -> None:
    assert split_sample({"big": 900, "small": 10, "mid": 40}, 100) == {"small": 10, "mid": 40, "big": 50}
    assert split_sample({"one": 5}, 100) == {"one": 5}
    drawn = draw_rows("big", 900, 50)
    assert len(set(drawn.tolist())) == 50
    assert drawn.tolist() == sorted(drawn.tolist()) == draw_rows("big", 900, 50).tolist()
    assert drawn.tolist() != draw_rows("other", 900, 50).tolist()


def test_lengths_know_what_is_cut() -> None:
    lengths = measure_lengths(np.arange(1, 101), 90)
    assert (lengths.percentiles[50], lengths.percentiles[99], lengths.percentiles[100]) == (51, 100, 100)
    assert lengths.cut_fraction == 0.10
    assert measure_lengths(np.array([3])).cut_fraction is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox jumps over the lazy dog near the river bank.", "en"),
        ("Le renard brun saute par-dessus le chien paresseux devant la rivière.", "fr"),
        ("Der schnelle braune Fuchs springt über den faulen Hund am Ufer.", "de"),
        ("这是一个关于机器学习的简短句子。", "zh"),
        ("git", "unsure"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_licences_are_read_from_cards_and_files(tmp_path: Path) -> None:
    rows = tmp_path / "a" / "train.parquet"
    rows.parent.mkdir()
    assert read_licence(rows).stated is None
    (rows.parent / "LICENSE").write_text("\n  MIT License\n\nPermission …")
    assert read_licence(rows).stated == "MIT License"
    card = (
        "# A\n\n## Licence\n\nCC BY 4.0,\nby A.\n\nMore.\n\n## Overlap with MTEB\n\nNone known.\n\n## Split\n"
    )
    (rows.parent / "card.md").write_text(card)
    found = read_licence(rows)
    assert (found.stated, found.mteb_overlap) == ("CC BY 4.0, by A.", "None known.")
    assert found.files == ("card.md", "LICENSE")
    (rows.parent / "card.md").write_text("---\nlicense: apache-2.0\n---\n\n## License\n\n## Split\n\nx\n")
    assert read_licence(rows.parent).stated == "apache-2.0"
