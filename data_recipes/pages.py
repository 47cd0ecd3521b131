"""Sections of HTML pages: a heading and the paragraphs below it."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from data_recipes.output import tidy
from embedtrain.data.rows import Row

HEADINGS = {"h1", "h2", "h3", "h4", "h5"}
HIDDEN = {"pre", "table", "script", "style", "nav", "header", "footer", "aside"}
ASIDES = {"Note", "Tip", "Caution", "Warning", "Important"}
NUMBER = re.compile(r"^(?:(?:Chapter|Appendix|Part) \S+|(?:[A-Z]\.)?\d[\d.]*)\s+")


class SectionReader(HTMLParser):
    """Collects (heading, paragraphs) of a page in `sections`; code, tables and navigation are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[str]]] = []
        self.hidden = 0
        self.tag = ""
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A heading or a paragraph begins, or a part that is not read."""
        self.hidden += tag in HIDDEN
        if tag in HEADINGS or tag == "p":
            self.close_text()
            self.tag = tag

    def handle_endtag(self, tag: str) -> None:
        """A heading, a paragraph or a part that is not read ends."""
        self.hidden -= tag in HIDDEN and self.hidden > 0
        if tag == self.tag:
            self.close_text()

    def handle_data(self, data: str) -> None:
        """Text of the open heading or paragraph."""
        if self.tag and not self.hidden:
            self.parts.append(data)

    def close_text(self) -> None:
        """Keep the text read so far as a heading or as a paragraph of the latest one."""
        text = tidy("".join(self.parts))
        if text and self.tag in HEADINGS:
            self.sections.append((NUMBER.sub("", text), []))
        elif text and self.sections:
            self.sections[-1][1].append(text)
        self.tag, self.parts = "", []


def read_page(path: Path) -> Iterator[Row]:
    """A row for every section of a page with a dozen words; later headings stand behind the page's."""
    reader = SectionReader()
    reader.feed(path.read_text())
    reader.close()
    for heading, paragraphs in reader.sections:
        page = reader.sections[0][0]
        text = " ".join(paragraphs)
        if len(text.split()) >= 12 and heading not in ASIDES:
            query = heading if heading.startswith(page) else f"{page}: {heading}"
            yield Row(query, (text,), task="retrieval")


def read_pages(paths: Iterable[Path]) -> Iterator[tuple[str, Row]]:
    """(page, row) of every page."""
    for path in paths:
        for row in read_page(path):
            yield path.name, row
