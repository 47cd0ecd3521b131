"""The FAQ test set: questions and answers of Perl's and Python's FAQ, and of Debian's where asked for.

Debian's FAQ is under the GPL: it is not shipped, and built into the folder by --with-debian.
"""

import argparse
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.markup import plain_pod, plain_rst, rst_paragraphs, rst_sections
from data_recipes.output import clip, psf_licence, tidy, write_retrieval
from data_recipes.registry import Recipe
from embedtrain.artifacts import write_atomic
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="faq", task="retrieval (test)", licence="Artistic, PSF-2.0", overlap="none known"),)

ANSWER_WORDS = 160
PYTHON_FAQ = "usr/share/doc/python3.11/html/_sources/faq"
CARD = """# FAQ: questions and answers

Made 2026-11-21 by `data_recipes/faq.py`: {counts}. A test set: no training text may contain it, and every
recipe drops rows whose text nearly equals one of its texts.

- Perl FAQ, from {perl}: by the perlfaq authors; here under the Artistic License that Perl comes with.
- Python FAQ, from {python}: Copyright (c) 2001-2023 Python Software Foundation; PSF License Version 2.
- Debian FAQ: GPL-2+, not shipped; `python -m data_recipes build faq --with-debian` adds it on your machine.

Query: the question. Document: its answer without code blocks, tables and markup, cut to {words} words.
Questions that are asked twice share their answers.
"""


def perl_pairs(folder: Path) -> Iterator[tuple[str, str]]:
    """Questions and answers of perlfaq1 to perlfaq9."""
    for path in sorted(folder.rglob("perlfaq[1-9].pod")):
        for block in re.split(r"^=head2 ", path.read_text(), flags=re.MULTILINE)[1:]:
            question, _, body = block.partition("\n\n")
            body = re.split(r"^=head1 ", body, flags=re.MULTILINE)[0]
            kept = [p for p in re.split(r"\n\s*\n", body) if p.strip() and not re.match(r"\s|=", p)]
            answer = " ".join(plain_pod(p) for p in kept if not p.startswith("(contributed by"))
            yield plain_pod(question), answer


def python_pairs(folder: Path) -> Iterator[tuple[str, str]]:
    """Questions and answers of Python's FAQ pages."""
    for path in sorted((folder / PYTHON_FAQ).glob("*.rst.txt")):
        for title, lines in rst_sections(path.read_text()):
            if title.endswith("?"):
                yield title, " ".join(rst_paragraphs(lines))


def debian_pairs(folder: Path) -> Iterator[tuple[str, str]]:
    """Questions and answers of Debian's FAQ, from its pages."""
    pages = sorted((folder / "usr/share/doc/debian/FAQ").glob("*.en.html"))
    for page in pages:
        for block in re.split(r"<h[23][^>]*>", page.read_text())[1:]:
            title, _, body = block.partition("</h")
            question = re.sub(r"^(Chapter )?[\d.\s]+", "", plain_html(title)).strip()
            answer = " ".join(plain_html(p) for p in re.findall(r"<p>(.*?)</p>", body, re.DOTALL))
            if question.endswith("?"):
                yield question, answer


def plain_html(text: str) -> str:
    """Text without tags."""
    return tidy(html.unescape(re.sub(r"<[^>]+>", "", text)))


def make_rows(pairs: Iterator[tuple[str, str]]) -> list[Row]:
    """Rows of the questions that have an answer in words."""
    return [Row(plain_rst(q), (clip(a, ANSWER_WORDS),)) for q, a in pairs if len(a.split()) >= 5]


def licence_text(perl: Path, python: Path) -> str:
    """The Artistic License and Python's, in full."""
    artistic = next(perl.rglob("perlartistic.pod")).read_text()
    artistic = re.sub(r"^=(head\d|item|over|back|cut)\b *\d*", "", artistic, flags=re.MULTILINE)
    parts = [plain_pod(p) for p in re.split(r"\n\s*\n", artistic[artistic.index('The "Artistic') :])]
    return "Perl FAQ\n\n" + "\n\n".join(parts) + "\n\nPython FAQ\n\n" + psf_licence(python)


def main(arguments: Sequence[str]) -> None:
    """Write rows/tests/faq."""
    parser = argparse.ArgumentParser("python -m data_recipes build faq", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("rows/tests/faq"), help="folder to write")
    parser.add_argument(
        "--raw", type=Path, default=fetch.default_raw(), help="folder that keeps raw packages"
    )
    parser.add_argument("--with-debian", action="store_true", help="add Debian's FAQ (GPL)")
    args = parser.parse_args(arguments)
    perl, python = (fetch.fetch_deb(name, args.raw) for name in ("perl-doc", "python3.11-doc"))
    parts = {"Perl": make_rows(perl_pairs(perl)), "Python": make_rows(python_pairs(python))}
    if args.with_debian:
        parts["Debian"] = make_rows(debian_pairs(fetch.fetch_deb("debian-faq", args.raw)))
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in parts.items())
    fetch.say(counts)
    rows = [row for part in parts.values() for row in part]
    write_retrieval(args.out, rows, len(rows))
    write_atomic(args.out / "LICENSE", licence_text(perl, python))
    origins = {"perl": fetch.origin(perl), "python": fetch.origin(python)}
    write_atomic(args.out / "card.md", CARD.format(counts=counts, words=ANSWER_WORDS, **origins))
