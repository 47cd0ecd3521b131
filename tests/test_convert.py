"""Examples of every task become the rows that a person would write: real rows, and what goes wrong."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from embedtrain.data.convert.classes import Labelled, example_rows, label_rows
from embedtrain.data.convert.pairs import (
    Answered,
    Compared,
    Graded,
    Inferred,
    Pair,
    duplicate_rows,
    graded_rows,
    nli_rows,
    parallel_rows,
    retrieval_rows,
    similar_rows,
    title_rows,
)
from embedtrain.data.convert.tasks import TASKS, convert_records
from embedtrain.data.formats.files import read_file
from embedtrain.data.formats.record import Record
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row, read_rows, row_fault

ROOT = Path(__file__).parent.parent
TEST_DATA = Path(os.environ.get("EMBEDTRAIN_TEST_DATA") or ROOT.parent / "shared" / "data")
needs_test_data = pytest.mark.skipif(
    not TEST_DATA.is_dir(), reason=f"{TEST_DATA}: no test sets; set EMBEDTRAIN_TEST_DATA"
)
# the first rows of SNLI's training part (CC BY-SA 4.0)
HORSE = "A person on a horse jumps over a broken down airplane."
SNLI = [
    Inferred(HORSE, "A person is training his horse for a competition.", "neutral"),
    Inferred(HORSE, "A person is at a diner, ordering an omelette.", "contradiction"),
    Inferred(HORSE, "A person is outdoors, on a horse.", "entailment"),
    Inferred("Children smiling and waving at camera", "They are smiling at their parents", "neutral"),
]


@pytest.fixture(scope="module")
def debian() -> list[Row]:
    """Real rows whose label is the section of the archive."""
    return read_rows(ROOT / "rows" / "debian" / "test.parquet")


def records(*values: dict[str, object]) -> list[Record]:
    return [Record(f"x.jsonl:{number}", value) for number, value in enumerate(values, 1)]


def converted(task: str, *values: dict[str, object]) -> list[Row]:
    problems = Problems()
    rows = list(convert_records(task, records(*values), problems))
    assert problems.messages == []
    return rows


def test_retrieval_keeps_each_text_once_and_no_positive_among_negatives() -> None:
    (row,) = retrieval_rows([Answered("q", ("a", "b", " a "), ("c", "b ", "c", " "), "Find it")])
    assert row == Row("q", ("a", "b"), ("c",), instruction="Find it", task="retrieval")


def test_titles_ask_for_their_real_bodies(debian: list[Row]) -> None:
    pairs = [Pair(row.query, row.positives[0]) for row in debian]
    made = list(title_rows([*pairs, Pair("", "body"), Pair("title", " "), Pair("same", "same ")]))
    assert [(row.query, row.positives[0]) for row in made] == pairs
    assert {row.task for row in made} == {"title_body"}


def test_nli_takes_entailed_as_positive_and_contradicting_as_negative() -> None:
    assert list(nli_rows(SNLI)) == [Row(HORSE, (SNLI[2].hypothesis,), (SNLI[1].hypothesis,), task="nli")]


def test_nli_leaves_out_what_is_judged_both_ways_and_a_premise_that_entails_itself() -> None:
    both = Inferred(HORSE, SNLI[2].hypothesis, "contradiction")
    assert list(nli_rows([*SNLI, both])) == []
    itself = Inferred("A dog runs.", "A dog runs. ", "entailment")
    more = [Inferred("A dog runs.", "An animal moves.", "entailment"), *SNLI, itself]
    assert [row.positives for row in nli_rows(more)] == [("An animal moves.",), (SNLI[2].hypothesis,)]


def test_duplicates_count_from_both_sides() -> None:
    pairs = [Compared("a", "b", True), Compared("a", "c", False), Compared("c", "d", True)]
    made = {row.query: (row.positives, row.negatives) for row in duplicate_rows(pairs)}
    assert made == {
        "a": (("b",), ("c",)),
        "b": (("a",), ()),
        "c": (("d",), ("a",)),
        "d": (("c",), ()),
    }
    assert list(duplicate_rows([Compared("a", "b", True), Compared("b", "a", False)])) == []


def test_translations_go_both_ways() -> None:
    verses = read_rows(ROOT / "rows" / "bible" / "test.parquet")[:50]
    made = list(parallel_rows(Pair(row.query, row.positives[0]) for row in verses))
    assert [(row.query, row.positives[0]) for row in made[::2]] == [
        (row.positives[0], row.query) for row in made[1::2]
    ]
    assert len(made) == 100
    assert list(parallel_rows([Pair("OK", "OK ")])) == []


@needs_test_data
def test_graded_pairs_keep_their_grade_and_thresholded_ones_go_both_ways() -> None:
    problems = Problems()
    found = list(read_file(TEST_DATA / "stsb-test.jsonl", problems))
    graded = list(convert_records("sts", found, problems))
    similar = list(convert_records("sts_pairs", found, problems))
    assert problems.messages == []
    assert len(graded) == len(found) == 1379
    assert [row.score for row in graded] == [record.values["score"] for record in found]
    alike = [r.values for r in found if r.values["score"] >= 4 and r.values["text1"] != r.values["text2"]]
    assert 300 < len(alike) < 500
    pairs = [(v["text1"], v["text2"]) for v in alike]
    assert [(row.query, row.positives[0]) for row in similar[::2]] == pairs
    assert [(row.positives[0], row.query) for row in similar[1::2]] == pairs


def test_a_grade_at_the_threshold_is_a_positive() -> None:
    pairs = [Graded("a", "b", 4.0), Graded("c", "d", 3.99), Graded("e", "e", 5.0)]
    assert [row.query for row in similar_rows(pairs)] == ["a", "b"]
    assert [row.score for row in graded_rows(pairs)] == [4.0, 3.99, 5.0]


def labelled(rows: list[Row]) -> list[Labelled]:
    return [Labelled(row.positives[0], str(row.label)) for row in rows]


def check_examples(examples: list[Labelled], made: list[Row], num_negatives: int) -> None:
    """Every positive is another text of the class, every negative a text of others only."""
    classes = defaultdict(set)
    for text, label in examples:
        classes[text.strip()].add(label)
    for row in made:
        assert row_fault(row) is None
        assert row.label in classes[row.query] & classes[row.positives[0]]
        assert row.positives[0] != row.query
        assert all(row.label not in classes[text] for text in row.negatives)
        assert len(set(row.negatives)) == len(row.negatives) == num_negatives


def test_classes_answer_by_examples_of_real_rows(debian: list[Row]) -> None:
    examples = labelled(debian)
    made = list(example_rows(examples, "classification"))
    sizes = Counter(label for _, label in examples)
    assert len(made) == sum(size for size in sizes.values() if size > 1) > 1500
    check_examples(examples, made, 7)
    labels = dict(examples)
    assert min(len({labels[text] for text in row.negatives}) for row in made) == 7  # one of each class drawn
    assert len({row.positives[0] for row in made}) > len(made) / 2  # drawn anew for each row
    assert {row.task for row in made} == {"classification"}


@needs_test_data
def test_banking_classes_answer_by_examples_and_by_label() -> None:
    problems = Problems()
    found = list(read_file(TEST_DATA / "banking77-test.jsonl", problems))
    examples = [Labelled(record.values["text"], record.values["label"]) for record in found]
    check_examples(examples, list(convert_records("clustering", found, problems)), 7)
    made = list(convert_records("classification_labels", found, problems))
    assert problems.messages == []
    assert made[0].query == "How do I locate my card?"
    assert made[0].positives == ("card arrival",)
    assert made[0].label == "card_arrival"
    assert {row.task for row in made} == {"classification"}
    names = {name for row in made for name in (*row.positives, *row.negatives)}
    assert len(names) == 77
    assert {len(row.negatives) for row in made} == {7}


def test_draws_depend_on_seed_and_place_alone(debian: list[Row]) -> None:
    examples = labelled(debian)
    for convert in (example_rows, label_rows):
        first = list(convert(examples, "clustering", seed=3))
        assert first == list(convert(iter(examples), "clustering", seed=3))
        assert first != list(convert(examples, "clustering", seed=4))


def test_two_classes_give_negatives_of_the_other_round_and_round() -> None:
    examples = [Labelled(f"{label} {n}", label) for n in range(6) for label in ("good", "bad")]
    check_examples(examples, list(example_rows(examples, "classification", num_negatives=2)), 2)
    alone = [Labelled("a", "x"), Labelled("b", "x"), Labelled("a ", "x")]
    assert [(row.query, row.negatives) for row in example_rows(alone, "clustering")] == [("a", ()), ("b", ())]


def test_a_text_of_two_classes_is_a_negative_of_neither() -> None:
    examples = [Labelled("both", "x"), Labelled("both", "y"), Labelled("a", "x"), Labelled("b", "y")]
    made = list(example_rows(examples, "classification"))
    check_examples(examples, [row for row in made if row.negatives], 1)
    assert not [row for row in made if "both" in row.negatives]
    by_label = {row.query: row for row in label_rows(examples, "classification")}
    assert by_label["both"] == Row("both", ("x", "y"), (), task="classification")
    assert by_label["a"].negatives == ("y",)


def test_usual_names_of_columns_are_known() -> None:
    answer = {"title": "Horse", "text": "It runs."}
    (row,) = converted("retrieval", {"question": "q", "pos": answer, "neg": ["n"], "prompt": "Find"})
    assert row == Row("q", ("Horse It runs.",), ("n",), instruction="Find", task="retrieval")
    (row,) = converted("nli", {"premise": HORSE, "hypothesis": "He rides.", "label": 0})
    assert row.positives == ("He rides.",)
    made = converted("pair_classification", {"question1": "a", "question2": "b", "is_duplicate": True})
    assert [row.query for row in made] == ["a", "b"]
    (row,) = converted("title_body", {"headline": "T", "content": "B"}, {"headline": None, "content": "B"})
    assert row == Row("T", ("B",), task="title_body")
    (row,) = converted("sts", {"sentence1": "a", "sentence2": "b", "label": 0.25})
    assert row.score == 0.25


def test_every_task_tells_place_column_found_and_expected() -> None:
    for name, task in TASKS.items():
        problems = Problems()
        rows = list(convert_records(name, records({"nothing": 1}, {"nothing": 2}), problems))
        assert rows == []
        if name == "title_body":  # web pages without a title are no fault
            assert not problems
            continue
        assert problems.messages[1].startswith("x.jsonl:2: '")
        assert any(f"'{column}'" in problems.messages[1] for column in task.columns), problems.messages


@pytest.mark.parametrize(
    ("task", "record", "message"),
    [
        (
            "nli",
            {"label": "entails"},
            "'label': found 'entails', expected entailment, neutral, contradiction",
        ),
        ("pair_classification", {"label": 2}, "'label': found '2', expected 0 or 1"),
        ("sts", {"score": "high"}, "'score': found 'high' (text), expected a finite number"),
        ("parallel", {"sentence2": " "}, "'sentence2': found blank text, expected a text"),
    ],
)
def test_a_wrong_value_is_left_out_and_told(task: str, record: dict[str, object], message: str) -> None:
    whole = {"sentence1": "a", "sentence2": "b", "label": 1, "score": 4}
    problems = Problems()
    made = list(convert_records(task, records({**whole, **record}, {**whole, "label": 0}), problems))
    assert len(problems.messages) == 1
    assert problems.messages[0].startswith(f"x.jsonl:1: {message}")
    assert len(made) == {"nli": 1, "pair_classification": 0, "sts": 1, "parallel": 2}[task]
