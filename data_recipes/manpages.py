"""Manual pages of Linux and of git: the line under NAME asks, the DESCRIPTION answers.

Licences differ by page, the GPL among them: built on demand, never shipped.
"""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.output import Card, tidy
from data_recipes.registry import Recipe
from data_recipes.roff import man_sections, man_summary
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="manpages", task="retrieval", licence="per page (GPL, BSD, …)", overlap="none known"),)

PACKAGES = ("manpages", "manpages-dev", "git-man")


def read_page(path: Path) -> Iterator[Row]:
    """The row of a page, unless it only points to another or says too little."""
    sections = man_sections(gzip.decompress(path.read_bytes()).decode())
    text = tidy(" ".join(t for t in sections.get("DESCRIPTION", []) if not t.endswith(":")))
    for summary in man_summary(sections.get("NAME", [])):
        if len(summary.split()) >= 2 and len(text.split()) >= 12:
            yield Row(summary, (text,), label=path.suffixes[-2].lstrip(".")[:1], task="retrieval")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/manpages."""
    args = fetch.read_arguments(
        arguments, __doc__, "build/rows/manpages", rows=1_000_000, test=100, words=200
    )
    folders = [fetch.fetch_deb(name, args.raw) for name in PACKAGES]
    pages = [path for folder in folders for path in sorted((folder / "usr/share/man").rglob("*.gz"))]
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Manual pages of Linux and git",
        origins=[fetch.origin(folder) for folder in folders],
        licence="Per page, see LICENSE: built on demand, not part of this repository.",
        made="Query: what the NAME section says of the page. Positive: the running text of its DESCRIPTION, "
        "without code and tables. `label`: the section of the manual.",
        split="By page.",
        date="2026-11-21",
    )
    found = ((path.name, row) for path in pages for row in read_page(path))
    write_built(args, found, card, fetch.copyright_text(folders))
