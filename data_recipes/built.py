"""Sets that are built on demand: held out by document, clear of every text that a shipped test set holds."""

import argparse
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from data_recipes.clusters import drop_duplicates
from data_recipes.fetch import order_key, say
from data_recipes.output import Card, clip, drop_kept_out, write_set
from data_recipes.registry import ROOT
from embedtrain.data.rows import Row, read_rows

HELD_OUT_OF_256 = 4
FEWEST_WORDS = 4  # a shorter held-out query is a name, which other texts may bear
CONTROL = re.compile(r"(?!\s)[\x00-\x1f\x7f-\x9f]")
Found = Iterable[tuple[str, Row]]


@cache
def shipped_test_texts() -> tuple[str, ...]:
    """Documents and longer queries of the held-out rows of every shipped set."""
    rows = [row for path in sorted((ROOT / "rows").glob("*/test.parquet")) for row in read_rows(path)]
    queries = [row.query for row in rows if len(row.query.split()) >= FEWEST_WORDS]
    return tuple(dict.fromkeys((*queries, *(text for row in rows for text in row.positives))))


def is_held_out(document: str) -> bool:
    """Whether a document is on the test side: by its name alone, so in every language and set alike."""
    return order_key(f"held out {document}")[0] < HELD_OUT_OF_256


def clipped(row: Row, words: int) -> Row:
    """The row with its texts cut to so many words and no control characters in them."""
    query, *positives = (clip(CONTROL.sub("", text), words) for text in (row.query, *row.positives))
    return replace(row, query=query, positives=tuple(positives))


def write_built(args: argparse.Namespace, found: Found, card: Card, licence: str, near: float = 0.7) -> None:
    """Write a set of (document, row): near duplicates (first positive, `near`) and test texts left out."""
    pairs = [(document, clipped(row, args.words)) for document, row in found]
    pairs = [pair for pair in pairs if pair[1].query.lower() != pair[1].positives[0].lower()]
    pairs.sort(key=lambda pair: order_key(pair[1].query + pair[1].positives[0]))
    kept = [pairs[n] for n in drop_duplicates([row.positives[0] for _, row in pairs], near)]
    say(f"{len(pairs)} pairs, {len(kept)} without near duplicates")
    test = [row for document, row in kept if is_held_out(document)][: args.test]
    train = [row for document, row in kept if not is_held_out(document)][: args.rows]
    long = [row.query for row in test if len(row.query.split()) >= FEWEST_WORDS]
    apart = drop_kept_out(train, (*shipped_test_texts(), *long))
    card = replace(
        card,
        words=args.words,
        split=f"{card.split} Held out: {HELD_OUT_OF_256} of 256 documents, by a hash of the name. "
        f"Near duplicates (overlap {near} of the first positive) were left out before: "
        f"{len(pairs) - len(kept)}; training rows that nearly equal (0.5) a text of a shipped test set or a "
        f"held-out query: {len(train) - len(apart)}.",
    )
    write_set(args.out, apart, test, card, licence)
