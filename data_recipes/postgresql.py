"""PostgreSQL's documentation: the title of a section asks, its text answers."""

from collections.abc import Sequence

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.output import Card
from data_recipes.pages import read_pages
from data_recipes.registry import Recipe

RECIPES = (Recipe(name="postgresql", task="retrieval", licence="PostgreSQL", overlap="none known"),)

PACKAGE = "postgresql-doc-15"


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/postgresql."""
    args = fetch.read_arguments(
        arguments, __doc__, "build/rows/postgresql", rows=1_000_000, test=100, words=200
    )
    folder = fetch.fetch_deb(PACKAGE, args.raw)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="PostgreSQL 15 documentation",
        origins=[fetch.origin(folder)],
        licence="PostgreSQL licence, see LICENSE.",
        made="Query: the title of a section behind its page's; positive: its text without code and tables.",
        split="By page.",
        date="2026-11-21",
    )
    pages = sorted(
        path
        for path in (folder / "usr/share/doc" / PACKAGE / "html").glob("*.html")
        if not path.name.startswith("release-")
    )
    write_built(args, read_pages(pages), card, fetch.copyright_text([folder]))
