"""LibreOffice's help: the heading of a page or section asks, its text answers."""

from collections.abc import Sequence

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.output import Card
from data_recipes.pages import read_pages
from data_recipes.registry import Recipe

RECIPES = (Recipe(name="libreoffice", task="retrieval", licence="MPL-2.0", overlap="none known"),)

PACKAGE = "libreoffice-help-en-us"


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/libreoffice."""
    args = fetch.read_arguments(
        arguments, __doc__, "build/rows/libreoffice", rows=1_000_000, test=100, words=200
    )
    folder = fetch.fetch_deb(PACKAGE, args.raw)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="LibreOffice 7.4 help, English",
        origins=[fetch.origin(folder)],
        licence="Mozilla Public License 2.0, see LICENSE.",
        made="Query: the heading of a section behind its page's; positive: its paragraphs without tables.",
        split="By name of page.",
        date="2026-11-21",
    )
    pages = sorted((folder / "usr/share/libreoffice/help/en-US/text").rglob("*.html"))
    write_built(args, read_pages(pages), card, fetch.copyright_text([folder]))
