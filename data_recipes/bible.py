"""The New Testament, King James Version and World English Bible, verse by verse: paraphrases."""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.clusters import cluster, features, overlap
from data_recipes.output import Card, clip, tidy, write_jsonl, write_set
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="bible", task="paraphrase", licence="public domain", overlap="BibleNLPBitextMining"),)

MODULES = {"sword-text-kjv": "engKJV2006eb", "sword-text-web": "engWEB2015eb"}
HIDDEN = re.compile(r"<(note|title|rdg)\b[^>]*?(?<!/)>.*?</\1>", re.DOTALL)
LICENCE = """Both translations are in the public domain. "World English Bible" is a trademark of eBible.org;
the text is copied faithfully but for white space, notes and headings, which are left out."""


def read_entries(stem: Path) -> Iterator[str]:
    """Raw entries of a SWORD zText testament: `.bzs` and `.bzv` place blocks and entries in `.bzz`."""
    places, entries, packed = (stem.with_suffix(end).read_bytes() for end in (".bzs", ".bzv", ".bzz"))
    blocks = [
        zlib.decompress(packed[start : start + size])
        for start, size, _ in struct.iter_unpack("<III", places)
        if size
    ]
    for block, start, size in struct.iter_unpack("<IIH", entries):
        yield blocks[block][start : start + size].decode() if size else ""


def read_verses(stem: Path) -> dict[tuple[str, int], str]:
    """(chapter, verse) → text; an entry with a chapter mark heads the chapter, its verses follow in order."""
    verses: dict[tuple[str, int], str] = {}
    chapter, number = "", 0
    for entry in read_entries(stem):
        mark = re.search(r'<chapter [^>]*osisID="([^"]+)"', entry)
        if mark or 'type="book"' in entry:
            chapter, number = (mark[1] if mark else ""), 0
            continue
        number += 1
        if chapter and (text := plain(entry)):
            verses[chapter, number] = text
    return verses


def plain(entry: str) -> str:
    """A verse without notes, headings and marks."""
    text = re.sub(r"<(?:div|lb|l|lg|milestone|p)\b[^>]*>", " ", HIDDEN.sub("", entry))
    return tidy(re.sub(r"<[^>]+>", "", text).replace("¶", ""))


def main(arguments: Sequence[str]) -> None:
    """Write rows/bible and the pairs of rows/tests/bible."""
    args = fetch.read_arguments(arguments, __doc__, "rows/bible", rows=4000, test=400)
    folders = {name: fetch.fetch_deb(name, args.raw) for name in MODULES}
    stems = [folders[n] / "usr/share/sword/modules/texts/ztext" / m / "nt" for n, m in MODULES.items()]
    kjv, web = map(read_verses, stems)
    pairs = list({(kjv[key], web[key]): (key, kjv[key], web[key]) for key in kjv if key in web}.values())
    pairs = [p for p in pairs if overlap(features(p[1]), features(p[2])) >= 0.05 and len(p[1].split()) > 3]
    fetch.say(f"{len(kjv)} and {len(web)} verses, {len(pairs)} pairs")
    clusters = cluster([[chapter] for (chapter, _), *_ in pairs], [f"{a} {b}" for _, a, b in pairs])
    order = [fetch.order_key(f"{key}") for key, *_ in pairs]
    train, test = split_chapters(clusters, order, args.test)
    rows = [Row(clip(a), (clip(b),), label=key[0].partition(".")[0]) for key, a, b in pairs]
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="New Testament: King James Version and World English Bible",
        origins=[fetch.origin(folder) for folder in folders.values()],
        licence="Public domain, see LICENSE.",
        made="Query: a verse of the King James Version; positive: the same verse of the World English Bible. "
        "The set is symmetric: both sides are alike. `label`: the book.",
        split="By chapter, joined with chapters that hold nearly the same verse (0.5; the "
        "Gospels retell each other).",
        date="2026-11-21",
    )
    write_set(args.out, [rows[n] for n in train[: args.rows]], [rows[n] for n in test], card, LICENCE)
    pairs_file = args.out.parent / "tests" / "bible" / "bible.jsonl"
    write_jsonl(pairs_file, ({"sentence1": rows[n].query, "sentence2": rows[n].positives[0]} for n in test))


def split_chapters(clusters: list[int], order: list[bytes], num_test: int) -> tuple[list[int], list[int]]:
    """(training, test): as `clusters.split`, but a chapter may fill a quarter of the test side."""
    members: dict[int, set[int]] = {}
    for position, number in enumerate(clusters):
        members.setdefault(number, set()).add(position)
    held_out: set[int] = set()
    for group in sorted(members.values(), key=lambda group: min(order[n] for n in group)):
        if len(group) <= num_test // 4 and len(held_out) + len(group) <= num_test:
            held_out |= group
    everything = sorted(range(len(clusters)), key=order.__getitem__)
    return [n for n in everything if n not in held_out], [n for n in everything if n in held_out]
