"""FOLDOC, the free on-line dictionary of computing: a term asks, its entry answers.

GFDL: built on demand, never shipped.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.dictd import read_entries
from data_recipes.output import Card, tidy
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="foldoc", task="retrieval", licence="GFDL", overlap="none known"),)


def read_terms(folder: Path) -> Iterator[tuple[str, Row]]:
    """(term, row) of every entry with a definition in words."""
    for term, entry in read_entries(folder, "foldoc"):
        body = re.sub(r"[{}]", "", entry.partition("\n")[2])
        text = tidy(re.sub(r"<[^<>]*>|\(\d{4}-\d\d-\d\d\)", "", body))
        if len(text.split()) >= 8:
            yield term.lower(), Row(term, (text,), task="retrieval")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/foldoc."""
    args = fetch.read_arguments(arguments, __doc__, "build/rows/foldoc", rows=1_000_000, test=400, words=200)
    folder = fetch.fetch_deb("dict-foldoc", args.raw)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Free On-line Dictionary of Computing",
        origins=[fetch.origin(folder)],
        licence="GNU Free Documentation License: built on demand, not part of this repository.",
        made="Query: a term; positive: its entry without cross-reference marks, topics and dates.",
        split="By term.",
        date="2026-11-21",
    )
    write_built(args, read_terms(folder), card, fetch.copyright_text([folder]))
