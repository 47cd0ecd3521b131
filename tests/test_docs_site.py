"""The documentation site: built without a warning, whole, links alive, nothing loaded from elsewhere."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from tools.build_site import CONFIG, ROOT, STARTS, BadLink, build, lay_out

PAGES = [*(ROOT / name for name in STARTS), *sorted((ROOT / "docs").rglob("*.md"))]
COUNTED = ("h1", "h2", "h3", "li", "table", "tr", "pre", "ol", "ul", "strong", "em")
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
LOADED_ON_DEMAND = ("mermaid", "glightbox", "pyodide")
"""Classes of elements for which the generator's script would fetch a library from another host."""


class Reader(HTMLParser):
    """What a built page holds: links, things it loads, ids, classes, and the tags of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.tags: Counter[str] = Counter()
        self.in_text = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values.get("id", "")}
        self.classes |= set(values.get("class", "").split())
        self.in_text |= tag == "article"
        if self.in_text:
            self.tags[tag] += 1
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADS and LOADS[tag] in values:
            self.loads.append(values[LOADS[tag]])

    def handle_endtag(self, tag: str) -> None:
        self.in_text &= tag != "article"


def read(page: Path) -> Reader:
    """A built page, read."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; the generator must have had nothing to complain about."""
    folder = tmp_path_factory.mktemp("site").resolve()
    said = build(folder)
    assert "No issues found" in said
    assert "warning" not in said.lower()
    return folder / "site"


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Reader]:
    return {path.relative_to(site): read(path) for path in sorted(site.rglob("*.html"))}


def place_of(page: Path) -> Path:
    """Where a page is on the site."""
    relative = page.relative_to(ROOT).with_suffix(".html")
    return relative.with_name("index.html") if page.name == "README.md" else relative


def nav_pages(entry: object) -> Iterator[str]:
    """All pages of a navigation entry."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for inner in entry.values():
            yield from nav_pages(inner)
    elif isinstance(entry, list):
        for inner in entry:
            yield from nav_pages(inner)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"]
    assert [next(iter(section)) for section in nav] == [
        "Start",
        "Recipes",
        "Guides",
        "Reference",
        "Contributing",
    ]
    assert sorted(nav_pages(nav)) == sorted(page.relative_to(ROOT).as_posix() for page in PAGES)


def test_every_page_is_built(built: dict[Path, Reader]) -> None:
    assert {place_of(page) for page in PAGES} <= set(built)


def test_nothing_is_loaded_from_other_hosts(site: Path, built: dict[Path, Reader]) -> None:
    for name, page in built.items():
        assert page.loads, name
        assert [one for one in page.loads if re.match(r"(https?:)?//", one)] == [], name
        assert not page.classes & set(LOADED_ON_DEMAND), name
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", text), sheet


def broken(site: Path, built: dict[Path, Reader]) -> list[str]:
    """Links between pages that lead nowhere, and loads that are not there."""
    found = []
    for name, page in built.items():
        for link in [*page.links, *page.loads]:
            path, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:", link) or name.name == "404.html":
                continue
            target = (site / name.parent / path).resolve() if path else site / name
            target = target / "index.html" if target.is_dir() else target
            inside = target.is_relative_to(site) and target.is_file()
            ids = (
                built[target.relative_to(site.resolve())].ids
                if inside and target.suffix == ".html"
                else {anchor}
            )
            if not inside or (anchor and anchor not in ids):
                found.append(f"{name}: {link}")
    return found


def test_every_link_leads_somewhere(site: Path, built: dict[Path, Reader]) -> None:
    assert broken(site, built) == []


def test_a_link_that_leads_nowhere_would_be_found(site: Path, built: dict[Path, Reader]) -> None:
    wrong = Reader()
    wrong.feed('<a href="docs/mining.html#no-such-heading"></a><a href="none.html"></a><img src="none.png">')
    found = broken(site, built | {Path("wrong.html"): wrong})
    assert found == [
        f"wrong.html: {one}" for one in ("docs/mining.html#no-such-heading", "none.html", "none.png")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_looks_as_in_the_repository(page: Path, built: dict[Path, Reader]) -> None:
    """Lists, tables and code blocks that another Markdown would see in the same text are all there."""
    theirs = read_text(MarkdownIt("commonmark").enable("table").render(page.read_text(encoding="utf-8")))
    ours = built[place_of(page)].tags
    ours["h1"] -= not theirs["h1"]  # the generator gives a page without a heading its title
    assert {tag: ours[tag] for tag in COUNTED} == {tag: theirs[tag] for tag in COUNTED}


def read_text(html: str) -> Counter[str]:
    """The tags of a text."""
    reader = Reader()
    reader.feed(f"<article>{html}</article>")
    return reader.tags


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("none.md", "README.md: links to none.md; expected a file of the repository"),
        ("docs", "README.md: links to docs; expected a file of the repository"),
        ("../outside.md", "README.md: links to outside.md; expected a file of the repository"),
    ],
)
def test_what_a_page_may_not_link_to(tmp_path: Path, link: str, said: str) -> None:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (tmp_path / "outside.md").write_text("# Outside\n")
    for name in STARTS:
        (root / name).write_text(f"# Page\n\n```text\n[no](link.md)\n```\n\n[a]({link})\n")
    with pytest.raises(BadLink) as caught:
        lay_out(root, tmp_path / "out")
    assert str(caught.value) == said
