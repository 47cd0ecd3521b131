"""Parallel sentences: German and English phrases of the Ding dictionary.

GPL: built on demand, never shipped.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.output import Card, tidy
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="ding-de-en", task="parallel", licence="GPL-2+", overlap="none known"),)

NOTES = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)|/[^/|;]*/")
FEWEST_WORDS = 4


def phrases(side: str) -> list[str]:
    """The phrases of one side of a line: the first wording of each, without notes."""
    return [tidy(NOTES.sub(" ", part.replace(";", " ; ")).partition(" ; ")[0]) for part in side.split(" | ")]


def read_pairs(path: Path) -> Iterator[tuple[str, Row]]:
    """(headword, row) of every phrase of four words in both languages."""
    for line in path.read_text().splitlines():
        german, found, english = line.partition(" :: ")
        sides = phrases(german), phrases(english)
        if not found or line.startswith("#") or len(sides[0]) != len(sides[1]):
            continue
        for one, other in zip(*sides, strict=True):
            if min(len(one.split()), len(other.split())) >= FEWEST_WORDS:
                yield sides[0][0].lower(), Row(one, (other,), task="parallel")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/ding-de-en."""
    args = fetch.read_arguments(
        arguments, __doc__, "build/rows/ding-de-en", rows=1_000_000, test=400, words=60
    )
    folder = fetch.fetch_deb("trans-de-en", args.raw)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Ding: German and English phrases",
        origins=[fetch.origin(folder)],
        licence="GNU General Public License, version 2 or later: built on demand, never shipped.",
        made=f"Query: a German phrase of at least {FEWEST_WORDS} words; positive: the English one beside it. "
        "The set is symmetric: both sides may ask.",
        split="By headword.",
        date="2026-11-21",
    )
    write_built(
        args, read_pairs(folder / "usr/share/trans/de-en"), card, fetch.copyright_text([folder]), near=0.9
    )
