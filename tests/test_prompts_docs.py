"""docs/prompts.md: its strings are what the formatter writes, and its source of examples is valid."""

import re
from pathlib import Path

import pytest
import yaml

from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.templates import TEMPLATES, validate_template
from embedtrain.text import format_document, format_query, source_text

PAGE = (Path(__file__).parent.parent / "docs" / "prompts.md").read_text()
ROWS = re.findall(r"^\| `(\{.*\})` \| (query|document) \| `(.*)` \| `(.*)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("source", "side", "text", "expected"), ROWS)
def test_the_strings_are_those_of_the_page(source: str, side: str, text: str, expected: str) -> None:
    values = yaml.safe_load(source.replace("\\|", "|"))
    how = source_text(TextFormat(), Source.model_validate({"rows": "x"} | values))
    formatted = format_query(how, text) if side == "query" else format_document(how, text, 1)
    assert formatted.text == expected.replace("\\|", "|").replace("\\n", "\n")


def test_the_table_was_found() -> None:
    assert len(ROWS) == 8


def test_the_example_of_examples_is_valid() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    for values in yaml.safe_load(block[1])["sources"].values():
        source = Source.model_validate(values)
        assert source.query is not None
        assert source.few_shot is not None
        validate_template(source.query, "few_shot_query")
        assert source.max_query_tokens is not None
        assert source.max_query_tokens > source.few_shot.max_tokens


def test_every_placeholder_of_texts_is_on_the_page() -> None:
    for kind in ("query", "document", "few_shot_query"):
        for name in {name for names in TEMPLATES[kind] for name in names}:
            assert f"| `{{{name}}}` |" in PAGE
