"""Published sets in small: records with their columns, enough of them to mine in, built as users build them.

Nothing here was downloaded. The columns are those of `tests/hub_cases.py`, whose records stand as templates;
where they were read stands in each set's card (`schema_from`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hub_cases import CASES, WEB

from data_recipes.hub.build import build_hub, hub_sets, read_arguments

COUNT = 72  # pairs a set: with their negatives more documents than the 100 that a recipe mines
SYLLABLES = ("ka", "lo", "mi", "ter", "un", "ves", "dor", "pa", "shi", "rel", "ga", "no")
Record = dict[str, Any]


class Texts:
    """Questions and what answers them: both hold three words that no other pair has in common."""

    def __init__(self, name: str) -> None:
        """The same texts for the same set, everywhere."""
        self.rng = np.random.default_rng(list(name.encode()))
        self.topics = [[self.word() for _ in range(3)] for _ in range(COUNT)]

    def word(self) -> str:
        return "".join(self.rng.choice(SYLLABLES, self.rng.integers(2, 4)))

    def words(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count))

    def query(self, n: int) -> str:
        return f"{' '.join(self.topics[n])} {self.words(1)}"

    def answer(self, n: int) -> str:
        return f"{' '.join(self.topics[n])} {self.words(2)}"

    def other(self, n: int) -> str:
        """A text on a part of the topic, which does not answer."""
        return f"{self.topics[n][0]} {self.words(5)}"

    def passage(self, text: str, number: int) -> Record:
        return {"docid": str(number), "title": "", "text": text}


def judged(texts: Texts, n: int) -> list[Record]:
    """A question with passages, as Tevatron writes it."""
    positive, negative = texts.passage(texts.answer(n), 2 * n), texts.passage(texts.other(n), 2 * n + 1)
    return [
        {
            "query_id": str(n),
            "query": texts.query(n),
            "positive_passages": [positive],
            "negative_passages": [negative],
        }
    ]


def instructed(texts: Texts, n: int) -> list[Record]:
    """KaLM's own rows, the instruction in the query."""
    negatives = [texts.other(n) for _ in range(2)]
    return [
        {"query": f"Instruct: {WEB} \n Query: {texts.query(n)}", "pos": [texts.answer(n)], "neg": negatives}
    ]


def page(texts: Texts, n: int) -> list[Record]:
    """A page of two sentences."""
    return [{"text": f"{texts.query(n)}.\n{texts.answer(n)}."}]


def entailed(texts: Texts, n: int) -> list[Record]:
    """A premise with what follows from it and what contradicts it."""
    premise = texts.query(n)
    hypotheses = [(texts.answer(n), 0), (texts.other(n), 2)]
    return [{"premise": premise, "hypothesis": text, "label": label} for text, label in hypotheses]


def doubled(texts: Texts, n: int) -> list[Record]:
    """A question with a duplicate and one that is none."""
    question, others = texts.query(n), [(texts.answer(n), 1), (texts.other(n), 0)]
    return [{"sentence1": question, "sentence2": text, "label": label} for text, label in others]


def graded(texts: Texts, n: int) -> list[Record]:
    """A pair with a grade from 0 to 1."""
    text = texts.answer(n) if n % 2 else texts.other(n)
    return [{"sentence1": texts.query(n), "sentence2": text, "score": round(n % 6 / 5, 1)}]


def pairs(query: str, answer: str) -> Callable[[Texts, int], list[Record]]:
    """Pairs under these columns."""
    return lambda texts, n: [{query: texts.query(n), answer: texts.answer(n)}]


MAKERS: dict[str, Callable[[Texts, int], list[Record]]] = {
    "all-nli": entailed,
    "amazon-qa": pairs("query", "answer"),
    "cc-news": pairs("title", "article"),
    "fineweb": page,
    "kalm-finetuning": instructed,
    "miracl": judged,
    "msmarco": judged,
    "natural-questions": pairs("query", "answer"),
    "quora": doubled,
    "stsb": graded,
}


def make_records(name: str) -> Iterator[Record]:
    """Records of a set: those of its case, with other texts."""
    texts, template = Texts(name), CASES[name][1][0]
    for n in range(COUNT):
        for record in MAKERS[name](texts, n):
            yield {**template, **record}


def write_records(name: str, folder: Path) -> Path:
    """The records in a file of the set's own kind and name; parquet holds them to the columns of the card."""
    path = folder / name / CASES[name][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    records = list(make_records(name))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pq.write_table(pa.Table.from_pylist(records, schema=hub_sets()[name].columns), path)
    return path


def build(words: Sequence[str]) -> str:
    """What `python -m data_recipes build WORDS` does, once, from small files instead of the hub.

    Returns the folder that it fills, below the working directory.
    """
    name, *options = words
    hub = hub_sets()[name]
    out = read_arguments(hub, options).out
    if not out.exists():
        build_hub(hub, [*options, "--files", str(write_records(name, Path("hub")))])
    return out.as_posix()
