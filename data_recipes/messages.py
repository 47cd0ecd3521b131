"""Parallel sentences: what git, GIMP and the core utilities say, in English and in another language.

GPL: built on demand, never shipped.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.output import Card, tidy
from data_recipes.registry import Recipe
from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row

LANGUAGES = ("zh_CN", "de", "fr", "es", "ru", "ja")
RECIPES = tuple(
    Recipe(
        name=f"messages-en-{language}",
        task="parallel",
        licence="GPL",
        overlap="none known",
        arguments=("--language", language, "--out", f"build/rows/messages-en-{language}"),
    )
    for language in LANGUAGES
)

PACKAGES = ("git", "gimp-data", "coreutils")
MAGIC, FEWEST_WORDS, MOST_WORDS = 0x950412DE, 5, 60


def read_catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """(message, translation) of a `.mo` file; of plurals the first. Raises UserError for another file."""
    content = path.read_bytes()
    order = next((order for order in "<>" if struct.unpack(order + "I", content[:4])[0] == MAGIC), None)
    if order is None:
        raise UserError(f"{path}: not a catalogue of messages; found {content[:4]!r} at its start")
    number, first, second = struct.unpack(order + "3I", content[8:20])
    for place in range(number):
        pair = []
        for table in (first, second):
            size, start = struct.unpack(order + "2I", content[table + 8 * place : table + 8 * place + 8])
            pair.append(content[start : start + size].decode().partition("\0")[0])
        yield pair[0].rpartition("\4")[2], pair[1]


def plain(message: str) -> str:
    """A message on one line without the marks of access keys."""
    return tidy(re.sub(r"\s*\(_\w\)|(?<![\w-])_(?=\w)", "", message))


def read_pairs(folders: Sequence[Path], language: str) -> Iterator[tuple[str, Row]]:
    """(message, row) of every translated message of five to sixty English words."""
    for folder in folders:
        for path in sorted((folder / "usr/share/locale" / language / "LC_MESSAGES").glob("*.mo")):
            for text, other in (map(plain, pair) for pair in read_catalogue(path)):
                if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS and other and other != text:
                    yield text.lower(), Row(text, (other,), label=path.stem, task="parallel")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/messages-en-<language>."""
    parser = fetch.arguments_parser(__doc__, "build/rows/messages-en-de", rows=1_000_000, test=400, words=200)
    parser.add_argument("--language", choices=LANGUAGES, default="de", help="the other language")
    args = parser.parse_args(arguments)
    folders = [fetch.fetch_deb(name, args.raw) for name in PACKAGES]
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title=f"Messages of git, GIMP and the core utilities, English and {args.language}",
        origins=[fetch.origin(folder) for folder in folders],
        licence="GNU General Public License, version 2 or 3, by program: built on demand, not part of this "
        "repository.",
        made=f"Query: a message of {FEWEST_WORDS} to {MOST_WORDS} words; positive: its translation. "
        "The set is symmetric: both sides may ask. `label`: the catalogue.",
        split="By message.",
        date="2026-11-21",
    )
    write_built(args, read_pairs(folders, args.language), card, fetch.copyright_text(folders), near=0.9)
