"""Debian package descriptions: the short description asks, the first telling paragraph answers."""

import re
from collections.abc import Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.clusters import cluster, drop_duplicates, split
from data_recipes.output import Card, clip, tidy, write_retrieval, write_set
from data_recipes.registry import Recipe
from embedtrain.artifacts import hash_file
from embedtrain.data.rows import Row

LICENCES = "per package, DFSG-free"
RECIPES = (
    Recipe(name="debian", task="retrieval", licence=LICENCES, overlap="none known"),
    Recipe(
        name="debian-all",
        task="retrieval",
        licence=LICENCES,
        overlap="none known",
        arguments=("--out", "build/rows/debian-all", "--rows", "1000000"),
    ),
)

SKIPPED_SECTIONS = {"oldlibs", "debug", "localization", "metapackages", "translations", "kernel"}
SIBLING = re.compile(r"-(prof$|dbg|dbgsym|dev|doc|data|common|l10n|examples|tests?|static)$")
BOILERPLATE = re.compile(
    r"^(this|the) (\S+ )?((meta|dummy |transitional |virtual |source )?-?package|metapackage) "
    r"(contains?|provides?|includes?|is|ships?|holds?|depends|installs?|builds?)\b|^it (provides|contains)|"
    r"^(contains|includes|install this|see |homepage|note)|transitional|dummy package|http",
    re.IGNORECASE,
)
LICENCE = """The descriptions are taken from the Debian archive (suite main). Each is part of its package and
under that package's licence, which meets the Debian Free Software Guidelines; the licence of a package
is found in its copyright file, /usr/share/doc/<package>/copyright, and at Debian's package tracker."""


def paragraphs(description: str) -> list[str]:
    """Paragraphs of a long description; lines indented further (lists, code) are left out."""
    found: list[list[str]] = [[]]
    for line in description.splitlines():
        if line.strip() in (".", ""):
            found.append([])
        elif not re.match(r"\s{2,}|\s[*-] ", line):
            found[-1].append(line)
    return [tidy(" ".join(lines)) for lines in found if lines]


def telling(description: str) -> str | None:
    """The first paragraph that says what the software is."""
    for text in paragraphs(description):
        if text.endswith(":"):
            text = text[: text.rfind(". ") + 1]
        if len(text.split()) >= 8 and not BOILERPLATE.search(text):
            return clip(text)
    return None


def read_packages(lists: Path) -> dict[str, tuple[str, str, str]]:
    """Description hash → (package, source package, section), first package by name."""
    packages: dict[str, tuple[str, str, str]] = {}
    for path in sorted(lists.glob("*bookworm_main*Packages*")):
        for stanza in fetch.read_stanzas(fetch.read_list(path)):
            name = stanza["Package"]
            source = stanza.get("Source", name).split()[0]
            section = stanza.get("Section", "misc").rpartition("/")[2]
            packages.setdefault(stanza.get("Description-md5", ""), (name, source, section))
    return packages


def read_rows(lists: Path) -> list[tuple[Row, str]]:
    """(row, source package) of every package with a telling description, in a fixed shuffle."""
    packages, found = read_packages(lists), []
    for path in sorted(lists.glob("*bookworm_main*Translation-en*")):
        for stanza in fetch.read_stanzas(fetch.read_list(path)):
            name, source, section = packages.get(stanza["Description-md5"], ("", "", "oldlibs"))
            title, _, description = stanza["Description-en"].partition("\n")
            title = tidy(
                re.sub(
                    r"\s*[(\[][^)\]]*[)\]]\s*$|; .*(libraries|documentation)$|\s+-+\s+\S+( \S+)?$", "", title
                )
            )
            text = telling(description)
            if section in SKIPPED_SECTIONS or (SIBLING.search(name) and name != source) or not text:
                continue
            if len(title.split()) >= 3 and title.lower() not in text.lower()[: len(title) + 3]:
                found.append((Row(title, (text,), label=section), source))
    return sorted(found, key=lambda pair: fetch.order_key(pair[0].query + pair[0].positives[0]))


def main(arguments: Sequence[str]) -> None:
    """Write rows/debian and the test folder rows/tests/debian."""
    args = fetch.read_arguments(arguments, __doc__, "rows/debian", rows=16000, test=1600)
    lists = fetch.fetch_lists(args.raw)
    pairs = read_rows(lists)
    fetch.say(f"{len(pairs)} packages with a telling description")
    pairs = [pairs[n] for n in drop_duplicates([row.positives[0] for row, _ in pairs])]
    pairs = [pairs[n] for n in drop_duplicates([row.query for row, _ in pairs], 0.9)]
    fetch.say(f"{len(pairs)} without near duplicates")
    texts = [f"{row.query} {row.positives[0]}" for row, _ in pairs]
    clusters = cluster([[source] for _, source in pairs], texts, 0.4)
    train, test = split(clusters, [fetch.order_key(text) for text in texts], args.test)
    rows = [row for row, _ in pairs]
    raw = sorted([*lists.glob("*bookworm_main*Packages*"), *lists.glob("*bookworm_main*Translation-en*")])
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Debian package descriptions",
        origins=[f"apt list {path.name.partition('dists_')[2]} (SHA-256 {hash_file(path)})" for path in raw],
        licence="Per package, free by the Debian Free Software Guidelines; see LICENSE.",
        made="Query: the short description. Positive: the first paragraph of the long one that is not about "
        "the packaging. `label`: the archive section. Development, debug, data and documentation siblings "
        "and near duplicates (overlap of words and word pairs 0.7) are left out.",
        split="By source package, joined with every other package whose text is a near duplicate (0.4).",
        date="2026-11-21",
    )
    write_set(args.out, [rows[n] for n in train[: args.rows]], [rows[n] for n in test], card, LICENCE)
    write_retrieval(args.out.parent / "tests" / "debian", [rows[n] for n in test], 400)
