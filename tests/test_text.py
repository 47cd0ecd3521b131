"""The exact strings the model sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.text import Formatted, format_document, format_query, prefix, suffix, validate_template

INSTRUCT = TextFormat(query="Instruct: {instruction}\nQuery: {text}", document="{text}")


def test_query_and_document() -> None:
    assert format_query(INSTRUCT, "how?", "Find it") == Formatted("Instruct: Find it\nQuery: how?", 25)
    assert format_document(INSTRUCT, "so", "Find it") == Formatted("so", 0)
    assert format_document(INSTRUCT, "so", "Find it", symmetric=True).text == "Instruct: Find it\nQuery: so"


@given(text=st.text(), instruction=st.text(), before=st.text("ab {}:\n"), after=st.text("cd {}"))
def test_text_comes_back_between_prefix_and_suffix(
    text: str, instruction: str, before: str, after: str
) -> None:
    """Braces in texts and instructions are never read as placeholders."""
    template = before + "{instruction}:{text}" + after
    formatted = format_query(TextFormat(query=template), text, instruction)
    assert formatted.text == before + instruction + ":" + text + after
    assert formatted.text[: formatted.instruction_chars] == prefix(template, instruction)
    assert formatted.text[formatted.instruction_chars :] == text + suffix(template, instruction)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Query:", "template 'Query:': holds {text} 0 times, must hold it once"),
        ("{text} {text}", "template '{text} {text}': holds {text} 2 times, must hold it once"),
        (
            "{title} {text}",
            "template '{title} {text}': unknown placeholder {title}; known are {instruction} and {text}",
        ),
        (
            "{instruction}{instruction}{text}",
            "template '{instruction}{instruction}{text}': holds {instruction} 2 times, at most once",
        ),
    ],
)
def test_bad_templates(template: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        validate_template(template)
    assert str(error.value) == message


def test_space_before_the_text_only_where_the_instruction_stays_in_the_pool() -> None:
    validate_template("Query: {text}")
    validate_template("Query:{text}", pool_instruction=False)
    validate_template("Query:\n{text}", pool_instruction=False)
    with pytest.raises(UserError, match="ends in a space and is to leave the pool"):
        validate_template("Query: {text}", pool_instruction=False)
    with pytest.raises(UserError, match="ends in a space and is to leave the pool"):
        validate_template("{instruction}{text}", instruction="Find: ", pool_instruction=False)
