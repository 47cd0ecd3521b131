"""The exact strings the model sees."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import FewShot, Source
from embedtrain.templates import prefix, suffix, validate_template
from embedtrain.text import (
    Formatted,
    SourceText,
    draw_examples,
    fixed_examples,
    format_document,
    format_query,
    source_text,
    write_examples,
    written_as_queries,
    written_as_query,
)

INSTRUCT = TextFormat(query="Instruct: {instruction}\nQuery: {text}", document="{text}")
FEW_SHOT = FewShot(min_examples=0, max_examples=5)
KEYS = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 20_000)


@dataclass(frozen=True)
class Shown:
    """A row as an example shows it."""

    query: str
    positives: tuple[str, ...]
    label: str | None = None
    instruction: str | None = None


def how(**values: object) -> SourceText:
    return source_text(INSTRUCT, Source.model_validate({"rows": "x.parquet"} | values), seed=7)


def cut(text: str, max_tokens: int) -> str:
    return " ".join(text.split(" ")[:max_tokens])


def test_query_and_document() -> None:
    bare = source_text(INSTRUCT)
    assert format_query(bare, "how?", "Find it") == Formatted("Instruct: Find it\nQuery: how?", 25)
    assert format_query(bare, "how?") == Formatted("Instruct: \nQuery: how?", 18)
    assert format_document(bare, "so", 1, "Find it") == Formatted("so", 0)
    symmetric = how(symmetric=True)
    assert format_document(symmetric, "so", 1, "Find it").text == "Instruct: Find it\nQuery: so"


def test_the_rows_own_instruction_wins_over_the_sources() -> None:
    source = how(instruction="Find it", query="{instruction}: {text}", document="{instruction} | {text}")
    assert format_query(source, "q").text == "Find it: q"
    assert format_query(source, "q", "Look").text == "Look: q"
    assert format_query(source, "q", "").text == ": q"
    assert format_document(source, "d", 1).text == "Find it | d"
    assert format_document(source, "d", 1, "Look").text == "Look | d"


def test_a_sources_templates_and_limits_win() -> None:
    fmt = TextFormat(query="a {text}", document="b {text}", max_query_tokens=5, max_document_tokens=9)
    plain = source_text(fmt, Source(rows="x.parquet"))
    assert (plain.query, plain.document) == ("a {text}", "b {text}")
    assert (plain.max_query_tokens, plain.max_document_tokens) == (5, 9)
    own = source_text(fmt, Source(rows="x", query="c {text}", document="{text}", max_document_tokens=3))
    assert (own.query, own.document, own.max_query_tokens, own.max_document_tokens) == (
        "c {text}",
        "{text}",
        5,
        3,
    )
    assert source_text(fmt, Source(rows="x", symmetric=True)).max_document_tokens == 5


def test_instructed_documents_are_a_share_chosen_by_seed_and_key_alone() -> None:
    source = how(instructed_documents_fraction=0.3, instruction="Find")
    chosen = written_as_queries(source, KEYS)
    assert abs(chosen.mean() - 0.3) < 0.015  # 4.6 standard errors
    shuffled = np.random.default_rng(1).permutation(len(KEYS))
    assert (written_as_queries(source, KEYS[shuffled]) == chosen[shuffled]).all()
    other = written_as_queries(replace(source, seed=8), KEYS)
    assert abs((other & chosen).mean() - 0.09) < 0.01  # independent of the first seed's choice
    for key, as_query in zip(KEYS[:200].tolist(), chosen[:200].tolist(), strict=True):
        assert written_as_query(source, key) is as_query
        expected = "Instruct: Find\nQuery: d" if as_query else "d"
        assert format_document(source, "d", key).text == expected
    more = written_as_queries(replace(source, instructed_documents_fraction=0.6), KEYS)
    assert (more | ~chosen).all()  # a larger share keeps the smaller one


def test_all_or_none_of_the_documents() -> None:
    assert written_as_queries(how(instructed_documents_fraction=1.0), KEYS).all()
    assert written_as_queries(how(symmetric=True), KEYS).all()
    assert not written_as_queries(how(), KEYS).any()


@given(text=st.text(), instruction=st.text(), before=st.text("ab {}:\n"), after=st.text("cd {}"))
def test_text_comes_back_between_prefix_and_suffix(
    text: str, instruction: str, before: str, after: str
) -> None:
    """Braces in texts and instructions are never read as placeholders."""
    template = before + "{instruction}:{text}" + after
    formatted = format_query(source_text(TextFormat(query=template)), text, instruction)
    assert formatted.text == before + instruction + ":" + text + after
    assert formatted.text[: formatted.instruction_chars] == prefix(template, instruction)
    assert formatted.text[formatted.instruction_chars :] == text + suffix(template, instruction)


def test_placeholders_in_values_stay_as_they_are() -> None:
    source = how(query="{examples}{instruction}: {text}", instruction="{examples} {text}")
    assert format_query(source, "{instruction}", examples="{text}\n").text == (
        "{text}\n{examples} {text}: {instruction}"
    )
    shown = Shown("{response}", ("{query}",))
    few = how(few_shot=FewShot(example="{query}={response}", separator=";"))
    assert write_examples([shown], few, cut, lambda _: True) == "{response}={query};"


@pytest.mark.parametrize("row_id", [0, 3, 9])
def test_examples_are_other_rows_drawn_evenly_by_seed_step_and_row(row_id: int) -> None:
    drawn = [draw_examples(7, step, row_id, 10, FEW_SHOT) for step in range(3000)]
    assert drawn == [draw_examples(7, step, row_id, 10, FEW_SHOT) for step in range(3000)]
    assert drawn != [draw_examples(8, step, row_id, 10, FEW_SHOT) for step in range(3000)]
    numbers = np.bincount([len(rows) for rows in drawn], minlength=6)
    assert len(numbers) == 6
    assert abs(numbers / 3000 - 1 / 6).max() < 0.035  # 5 standard errors
    assert all(len(set(rows)) == len(rows) for rows in drawn)
    counts = np.bincount([row for rows in drawn for row in rows], minlength=10)
    assert counts[row_id] == 0
    share = np.delete(counts, row_id) / counts.sum()
    assert len(counts) == 10
    assert abs(share - 1 / 9).max() < 0.02


def test_a_small_source_gives_the_examples_it_has() -> None:
    few = FewShot(min_examples=5, max_examples=5)
    assert sorted(draw_examples(7, 1, 1, 3, few)) == [0, 2]
    assert draw_examples(7, 1, 0, 1, few) == []
    assert sorted(fixed_examples(7, 3, 5)) == [0, 1, 2]
    assert fixed_examples(7, 1000, 3) == fixed_examples(7, 1000, 3)
    assert len(set(fixed_examples(7, 1000, 3))) == 3


def test_examples_as_the_field_writes_them() -> None:
    source = how(
        instruction="Find it",
        query="{examples}Instruct: {instruction}\nQuery: {text}\nResponse:",
        few_shot=FewShot(max_query_tokens=2, max_response_tokens=3),
    )
    rows = [Shown("one two three", ("a b c d", "no")), Shown("q", ("p",), instruction="Own")]
    examples = write_examples(rows, source, cut, lambda _: True)
    assert examples == (
        "Instruct: Find it\nQuery: one two\nResponse: a b c\n\nInstruct: Own\nQuery: q\nResponse: p\n\n"
    )
    formatted = format_query(source, "now?", examples=examples)
    assert formatted.text == examples + "Instruct: Find it\nQuery: now?\nResponse:"
    assert formatted.text[formatted.instruction_chars :] == "now?\nResponse:"
    assert format_document(replace(source, symmetric=True), "d", 1).text.startswith("Instruct: Find it\n")


def test_no_example_is_added_that_does_not_fit() -> None:
    source = how(few_shot=FewShot(example="{query}{response}", separator="."))
    rows = [Shown(name, (name,)) for name in "abcd"]
    for room, expected in ((2, ""), (3, "aa."), (8, "aa.bb."), (99, "aa.bb.cc.dd.")):
        assert write_examples(rows, source, cut, lambda text, room=room: len(text) <= room) == expected
    assert write_examples(rows, how(), cut, lambda _: True) == ""


def test_the_class_answers_where_asked() -> None:
    source = how(few_shot=FewShot(example="{query}={response}", response="label"))
    assert write_examples([Shown("q", ("p",), "sport")], source, cut, lambda _: True) == "q=sport\n\n"
    with pytest.raises(UserError) as error:
        write_examples([Shown("q", ("p",))], source, cut, lambda _: True)
    assert str(error.value) == "few_shot.response is 'label', and the row of query 'q' has no label"


@pytest.mark.parametrize(
    ("kind", "template", "message"),
    [
        ("query", "Query:", "holds {text} 0 times, must hold it once"),
        ("query", "{text} {text}", "holds {text} 2 times, must hold it once"),
        ("query", "{title} {text}", "unknown placeholder {title}; known are {instruction} and {text}"),
        (
            "query",
            "{instruction}{instruction}{text}",
            "holds {instruction} 2 times, at most once",
        ),
        (
            "query",
            "{examples}{text}",
            "unknown placeholder {examples}; known are {instruction} and {text}; "
            "{examples} is filled only where the source has few_shot",
        ),
        ("few_shot_query", "{text}", "holds {examples} 0 times, must hold it once"),
        ("few_shot_query", "{text}{examples}", "{examples} stands after {text}; put it in front"),
        ("shared_query", "{examples}{examples}{text}", "holds {examples} 2 times, at most once"),
        ("example", "{query}", "holds {response} 0 times, must hold it once"),
        (
            "example",
            "{query}{response}{text}",
            "unknown placeholder {text}; known are {instruction}, {query} and {response}",
        ),
    ],
)
def test_bad_templates(kind: str, template: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        validate_template(template, kind)
    assert str(error.value) == f"template {template!r}: {message}"


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        ("query", "{text}"),
        ("few_shot_query", "{examples}{instruction}\n{text}\n"),
        ("shared_query", "{text}"),
        ("shared_query", "{examples}{text}"),
        ("example", "{query} {response}"),
        ("example", FewShot().example),
    ],
)
def test_good_templates(kind: str, template: str) -> None:
    validate_template(template, kind, pool_instruction=False)


def test_space_before_the_text_only_where_the_instruction_stays_in_the_pool() -> None:
    validate_template("Query: {text}")
    validate_template("Query:{text}", pool_instruction=False)
    validate_template("Query:\n{text}", pool_instruction=False)
    with pytest.raises(UserError, match="ends in a space and is to leave the pool"):
        validate_template("Query: {text}", pool_instruction=False)
    with pytest.raises(UserError, match="ends in a space and is to leave the pool"):
        validate_template("{instruction}{text}", instruction="Find: ", pool_instruction=False)
