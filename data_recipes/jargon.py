"""The Jargon File: a term asks, its entry answers."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.dictd import read_entries
from data_recipes.output import Card, tidy
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="jargon", task="retrieval", licence="public domain", overlap="none known"),)

PART = re.compile(r"^[^\n]*\n(?: [^ \n][^\n]*\n)?")


def read_terms(folder: Path) -> Iterator[tuple[str, Row]]:
    """(term, row) of every entry in words; the line of pronunciation and part of speech is left out."""
    for term, entry in read_entries(folder, "jargon"):
        text = tidy(re.sub(r"\{\s*|\s*\}", "", PART.sub("", entry)))
        if len(text.split()) >= 8:
            yield term.lower(), Row(term, (text,), task="retrieval")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/jargon."""
    args = fetch.read_arguments(arguments, __doc__, "build/rows/jargon", rows=1_000_000, test=100, words=200)
    folder = fetch.fetch_deb("dict-jargon", args.raw)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Jargon File 4.4.7",
        origins=[fetch.origin(folder)],
        licence="Public domain, see LICENSE.",
        made="Query: a term; positive: its entry without pronunciation, part of speech and reference marks.",
        split="By term.",
        date="2026-11-21",
    )
    write_built(args, read_terms(folder), card, fetch.copyright_text([folder]))
