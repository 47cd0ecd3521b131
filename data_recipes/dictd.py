"""Entries of the dictionaries that dictd serves: one text file, and an index of places in base 64."""

import gzip
from collections.abc import Iterator
from pathlib import Path

DIGITS = {c: n for n, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def number(text: str) -> int:
    """A number as dictd indexes write it, in base 64."""
    value = 0
    for sign in text:
        value = value * 64 + DIGITS[sign]
    return value


def decode(entry: bytes) -> str:
    """UTF-8, or Windows' Latin alphabet where it is not."""
    try:
        return entry.decode()
    except UnicodeDecodeError:
        return entry.decode("cp1252")


def read_entries(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(index term, entry) of a dictionary's package; an entry that several terms name is given once.

    Of several terms the one that the entry begins with is given.
    """
    dictd = folder / "usr/share/dictd"
    data = gzip.decompress((dictd / f"{name}.dict.dz").read_bytes())
    terms: dict[tuple[int, int], list[str]] = {}
    for line in (dictd / f"{name}.index").read_text().splitlines():
        term, start, size = line.split("\t")[:3]
        if not term.startswith("00-"):
            terms.setdefault((number(start), number(size)), []).append(term)
    for (place, length), names in terms.items():
        entry = decode(data[place : place + length])
        yield next((name for name in names if entry.lower().startswith(name.lower())), names[0]), entry
