"""FOLDOC, the free on-line dictionary of computing: a term asks, its entry answers.

GFDL: built on demand, never shipped.
"""

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.clusters import cluster, drop_duplicates, split
from data_recipes.output import Card, clip, tidy, write_set
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="foldoc", task="retrieval", licence="GFDL", overlap="none known"),)

DIGITS = {c: n for n, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def number(text: str) -> int:
    """A number as dictd indexes write it, in base 64."""
    value = 0
    for sign in text:
        value = value * 64 + DIGITS[sign]
    return value


def read_entries(folder: Path) -> list[Row]:
    """A row for every entry with a definition in words, in a fixed shuffle."""
    data = gzip.decompress((folder / "foldoc.dict.dz").read_bytes())
    rows = []
    for line in (folder / "foldoc.index").read_text().splitlines():
        term, start, size = line.split("\t")[:3]
        body = data[number(start) : number(start) + number(size)].decode().partition("\n")[2]
        text = re.sub(r"<[^<>]*>|\(\d{4}-\d\d-\d\d\)", "", re.sub(r"[{}]", "", body))
        text = clip(tidy(text))
        if not term.startswith("00-") and len(text.split()) >= 8:
            rows.append(Row(term, (text,)))
    return sorted(rows, key=lambda row: fetch.order_key(row.query))


def main(arguments: Sequence[str]) -> None:
    """Write rows/foldoc."""
    args = fetch.read_arguments(arguments, __doc__, "rows/foldoc", rows=10000, test=400)
    folder = fetch.fetch_deb("dict-foldoc", args.raw)
    rows = read_entries(folder / "usr/share/dictd")
    rows = [rows[n] for n in drop_duplicates([row.positives[0] for row in rows])]
    texts = [row.positives[0] for row in rows]
    clusters = cluster([[row.query.lower()] for row in rows], texts)
    train, test = split(clusters, [fetch.order_key(row.query) for row in rows], args.test)
    card = Card(
        recipe=__name__,
        title="Free On-line Dictionary of Computing",
        origins=[fetch.origin(folder)],
        licence="GNU Free Documentation License: built on demand, not part of this repository.",
        made="Query: a term; positive: its entry without cross-reference marks, topics and dates.",
        split="By term, joined with terms of nearly the same entry (0.5).",
        date="2026-11-21",
    )
    licence = (folder / "usr/share/doc/dict-foldoc/copyright").read_text()
    write_set(args.out, [rows[n] for n in train[: args.rows]], [rows[n] for n in test], card, licence)
