"""Python's documentation: a section title or a function asks, its first paragraph answers. No FAQ."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent

from data_recipes import fetch
from data_recipes.clusters import cluster, drop_duplicates, split
from data_recipes.markup import plain_rst, rst_paragraphs, rst_sections
from data_recipes.output import Card, clip, psf_licence, write_set
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (
    Recipe(name="pydoc", task="retrieval", licence="PSF-2.0", overlap="none known"),
    Recipe(
        name="pydoc-all",
        task="retrieval",
        licence="PSF-2.0",
        overlap="none known",
        arguments=("--out", "build/rows/pydoc-all", "--rows", "1000000"),
    ),
)

SOURCES = "usr/share/doc/python3.11/html/_sources"
PARTS = ("library", "howto", "tutorial", "reference", "using", "extending", "distributing", "installing")
DIRECTIVE = re.compile(r"^( *)\.\. (?:function|method|class|exception|data|attribute|opcode):: *(.+)$")
MODULE = re.compile(r"^\.\. (?:current)?module:: (\S+)", re.MULTILINE)


def read_functions(source: str) -> Iterator[tuple[str, str]]:
    """(qualified name, first paragraph) of every documented function, class and constant."""
    module = found[1] if (found := MODULE.search(source)) else ""
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if not (match := DIRECTIVE.match(line)):
            continue
        body = []
        for later in lines[number + 1 :]:
            if later.strip() and len(later) - len(later.lstrip()) <= len(match[1]):
                break
            body.append(later)
        name = re.sub(r"\(.*|:.*", "", match[2]).strip()
        text = next(rst_paragraphs(dedent("\n".join(body)).splitlines()), "")
        yield (name if not module or name.startswith(module) else f"{module}.{name}"), text


def read_page(path: Path) -> Iterator[tuple[str, str]]:
    """(query, text) pairs of one page."""
    source = path.read_text()
    sections = list(rst_sections(source))
    page = sections[0][0].partition(" — ")[0].partition(" --- ")[0] if sections else ""
    for title, lines in sections:
        shown = title.replace(" --- ", ": ")
        text = next(rst_paragraphs(lines), "")
        yield (shown if shown.startswith(page) or not page else f"{page}: {shown}"), text
    yield from read_functions(source)


def read_docs(folder: Path) -> list[tuple[str, Row]]:
    """(page, row) of every usable pair, in a fixed shuffle."""
    found = []
    for path in sorted(p for part in PARTS for p in (folder / part).rglob("*.rst.txt")):
        for query, text in read_page(path):
            text = clip(text)
            if len(text.split()) >= 8 and not text.endswith(":") and len(query.strip()) > 2:
                found.append((path.name, Row(plain_rst(query), (text,))))
    return sorted(found, key=lambda pair: fetch.order_key(pair[1].query + pair[1].positives[0]))


def main(arguments: Sequence[str]) -> None:
    """Write rows/pydoc."""
    args = fetch.read_arguments(arguments, __doc__, "rows/pydoc", rows=2500, test=200)
    folder = fetch.fetch_deb("python3.11-doc", args.raw)
    pairs = read_docs(folder / SOURCES)
    pairs = [pairs[n] for n in drop_duplicates([row.positives[0] for _, row in pairs])]
    rows = [row for _, row in pairs]
    clusters = cluster([[page] for page, _ in pairs], [row.positives[0] for row in rows], 0.6)
    order = [fetch.order_key(f"{row.query}{row.positives[0]}") for row in rows]
    train, test = split(clusters, order, args.test)
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Python 3.11 documentation",
        origins=[fetch.origin(folder)],
        licence="Python Software Foundation License Version 2; examples also Zero-Clause BSD. See LICENSE.",
        made="Query: a section title with its page's, or the qualified name of a function or class. "
        f"Positive: its first paragraph. Parts: {', '.join(PARTS)}; the FAQ is left out.",
        split="By page, joined with pages that hold nearly the same paragraph (0.6).",
        date="2026-11-21",
    )
    write_set(
        args.out, [rows[n] for n in train[: args.rows]], [rows[n] for n in test], card, psf_licence(folder)
    )
