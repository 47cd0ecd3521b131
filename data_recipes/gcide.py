"""GCIDE, the Collaborative International Dictionary of English: a word asks, its entries answer.

GPL: built on demand, never shipped.
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

RECIPES = (Recipe(name="gcide", task="retrieval", licence="GPL-2+", overlap="none known"),)

SIGNS = {"[deg]": "°", "[frac12]": "½", "[ae]": "æ", "[oe]": "œ", "[AE]": "Æ", "[OE]": "Œ", "[eacute]": "é"}
PARTS = r"(?:(?:[a-z]{1,6}|p\. p)\.(?: ?[&;,] ?| )*(?:\{[^{}]*\}[.;, ]*)*)*"
HEAD = re.compile(rf"^[^\\(\n]*(?:(?:\\[^\\]*\\|\([^)]{{0,90}}\)),?\s*)+{PARTS}", re.DOTALL)
DERIVED = re.compile(r"(?:--\s*)?\{?\b\w+(?:[\"*`]+\w+)+\}?,?\s+(?:n|adv|a)\.")
FORMS = re.compile(r"^[;,]?\s*(?:(?:fem|pl|sing|compar|superl|pos)\.\s*\{?[\w -]+\}?[.;,(]*\s*)+")
CREDIT = re.compile(r"\s*--\s?(?:[A-Z]\w{0,3}\. ?)*[A-Z][\w' &]*?(?:\.(?=\s|$)|$)(?:\s*\([^)]*\)\.?)?")
FEWEST_WORDS = 4


def plain(entry: str) -> str:
    """The definition of an entry: no pronunciation, origin, credit, number or mark of a reference."""
    text = entry
    for mark, sign in SIGNS.items():
        text = text.replace(mark, sign)
    text = HEAD.sub("", text) if HEAD.match(text) else text.partition("\n")[2]
    while (shorter := re.sub(r"\[[^\[\]]*\]", "", text)) != text:
        text = shorter
    text = DERIVED.sub("", text)
    text = " ".join(CREDIT.sub("", line) for line in re.split(r"\n\s*\n", text))
    text = FORMS.sub("", tidy(re.sub(r"[{}]|(?<=\s)\(?\d+\.\s|\s+--\s", " ", f" {text}")))
    return tidy(text).lstrip(" .,;")


def read_words(folder: Path) -> Iterator[tuple[str, Row]]:
    """(word, row): the entries of a word that has several stand together as positives."""
    entries: dict[str, list[str]] = {}
    for term, entry in read_entries(folder, "gcide"):
        text = plain(entry)
        if len(text.split()) >= FEWEST_WORDS and text not in (own := entries.setdefault(term, [])):
            own.append(text)
    for term, texts in entries.items():
        if texts:
            yield term.lower(), Row(term, tuple(texts), task="retrieval")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/gcide."""
    args = fetch.read_arguments(arguments, __doc__, "build/rows/gcide", rows=1_000_000, test=1000, words=200)
    folder = fetch.fetch_deb("dict-gcide", args.raw)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Collaborative International Dictionary of English 0.48",
        origins=[fetch.origin(folder)],
        licence="GNU General Public License, version 2 or later: built on demand, never shipped.",
        made="Query: a word; positives: its entries, without pronunciation, origin, credits and marks.",
        split="By word.",
        date="2026-11-21",
    )
    write_built(args, read_words(folder), card, fetch.copyright_text([folder]))
