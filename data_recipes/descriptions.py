"""Parallel sentences: the short description of a Debian package in English and in another language."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.debian import LICENCE, read_packages
from data_recipes.output import Card, tidy
from data_recipes.registry import Recipe
from embedtrain.artifacts import hash_file
from embedtrain.data.rows import Row

LANGUAGES = ("it", "da", "fr", "de", "pt_BR", "ja", "ru", "es", "zh_CN")
RECIPES = tuple(
    Recipe(
        name=f"descriptions-en-{language}",
        task="parallel",
        licence="per package, DFSG-free",
        overlap="none known",
        arguments=("--language", language, "--out", f"build/rows/descriptions-en-{language}"),
    )
    for language in LANGUAGES
)

FEWEST_WORDS = 3


def list_path(lists: Path, language: str) -> Path:
    """The list of descriptions of the main archive in a language."""
    return next(lists.glob(f"*bookworm_main*Translation-{language.replace('_', '%5f')}*"))


def read_titles(lists: Path, language: str) -> dict[str, str]:
    """Hash of the English description → first line of the description in a language."""
    name, texts = f"Description-{language}", fetch.read_stanzas(fetch.read_list(list_path(lists, language)))
    return {s["Description-md5"]: tidy(s[name].partition("\n")[0]) for s in texts if name in s}


def read_pairs(lists: Path, language: str) -> Iterator[tuple[str, Row]]:
    """(source package, row) of every short description that is translated."""
    packages, english = read_packages(lists), read_titles(lists, "en")
    for digest, other in read_titles(lists, language).items():
        text = english.get(digest, "")
        if len(text.split()) >= FEWEST_WORDS and other and other.lower() != text.lower():
            yield packages.get(digest, ("", digest, ""))[1], Row(text, (other,), task="parallel")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/descriptions-en-<language>."""
    out = "build/rows/descriptions-en-de"
    parser = fetch.arguments_parser(__doc__, out, rows=1_000_000, test=400, words=60)
    parser.add_argument("--language", choices=LANGUAGES, default="de", help="the other language")
    args = parser.parse_args(arguments)
    lists = fetch.fetch_lists(args.raw, LANGUAGES)
    files = sorted(lists.glob("*bookworm_main*Packages*"))
    files += [list_path(lists, language) for language in ("en", args.language)]
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title=f"Short descriptions of Debian packages, English and {args.language}",
        origins=[
            f"apt list {path.name.partition('dists_')[2]} (SHA-256 {hash_file(path)})" for path in files
        ],
        licence="Per package, free by the Debian Free Software Guidelines; see LICENSE.",
        made=f"Query: the short description in English, at least {FEWEST_WORDS} words; positive: its "
        "translation. The set is symmetric: both sides may ask.",
        split="By source package.",
        date="2026-11-21",
    )
    write_built(args, read_pairs(lists, args.language), card, LICENCE, near=0.9)
