"""Rows of labelled texts: another text of the same class answers, or the name of the class does."""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from embedtrain.data.rows import Row

NUM_NEGATIVES = 7
TRIES = 8  # draws before a class is passed over: its texts are also of the own class, or taken


class Labelled(NamedTuple):
    """A text and the name of its class."""

    text: str
    label: str


def example_rows(
    examples: Iterable[Labelled], task: str, num_negatives: int = NUM_NEGATIVES, seed: int = 0
) -> Iterator[Row]:
    """A row for each example: positive is another text of its class, negatives are texts of other classes.

    Other classes are drawn in turn, no class twice before all were drawn; no text that is also of the own
    class is a negative. A text without a fellow in its class gives no row. Draws depend on the seed and the
    place of the example. All examples are held in memory.
    """
    everything = tidied(examples)
    members = by_class(everything)
    own_texts = {label: set(texts) for label, texts in members.items()}
    classes = list(members)
    for number, (text, label) in enumerate(everything):
        if len(members[label]) > 1:
            words = random_words(seed, number)
            positive = other_text(members[label], text, words)
            others = draw_different(classes, {label}, num_negatives, words)
            turns = (members[others[turn % len(others)]] for turn in range(num_negatives if others else 0))
            negatives = draw_texts(turns, own_texts[label], words)
            yield Row(text, (positive,), negatives, label=label, task=task)


def label_rows(
    examples: Iterable[Labelled], task: str, num_negatives: int = NUM_NEGATIVES, seed: int = 0
) -> Iterator[Row]:
    """A row for each example: positive is the name of its class, negatives are names of other classes.

    A name is written in words: `card_arrival` as `card arrival`. A text of several classes asks for all of
    them. Draws depend on the seed and the place of the text. All examples are held in memory.
    """
    classes: dict[str, list[str]] = {}
    for text, label in tidied(examples):
        classes.setdefault(text, []).append(label)
    names = list(dict.fromkeys(in_words(label) for own in classes.values() for label in own))
    for number, (text, own) in enumerate(classes.items()):
        positives = tuple(dict.fromkeys(map(in_words, own)))
        negatives = draw_different(names, set(positives), num_negatives, random_words(seed, number))
        yield Row(text, positives, tuple(negatives), label=own[0] if len(own) == 1 else None, task=task)


def tidied(examples: Iterable[Labelled]) -> list[Labelled]:
    """The examples without white space around, each once."""
    return list(dict.fromkeys(Labelled(text.strip(), label.strip()) for text, label in examples))


def by_class(examples: Iterable[Labelled]) -> dict[str, list[str]]:
    """Class → its texts, each once, in order of coming."""
    members: dict[str, list[str]] = {}
    for text, label in examples:
        members.setdefault(label, []).append(text)
    return members


def random_words(seed: int, place: int) -> Iterator[int]:
    """Endless 64-bit numbers that depend on the seed and the place alone, on any machine."""
    for block in count():
        digest = hashlib.blake2b(f"{seed} {place} {block}".encode()).digest()
        yield from struct.unpack("<8Q", digest)


def other_text(texts: Sequence[str], own: str, words: Iterator[int]) -> str:
    """A text of the class that is not the own one."""
    place = next(words) % len(texts)
    return texts[place] if texts[place] != own else texts[place - 1]


def draw_different(names: Sequence[str], but: set[str], num: int, words: Iterator[int]) -> list[str]:
    """`num` different names, none of `but` (some of the names); fewer where there are no more."""
    found: dict[str, None] = {}
    while len(found) < min(num, len(names) - len(but)):
        name = names[next(words) % len(names)]
        if name not in but:
            found[name] = None
    return list(found)


def draw_texts(classes: Iterable[Sequence[str]], own: set[str], words: Iterator[int]) -> tuple[str, ...]:
    """A text of each class, none twice and none of the own class."""
    found: dict[str, None] = {}
    for texts in classes:
        for _ in range(TRIES):
            text = texts[next(words) % len(texts)]
            if text not in own and text not in found:
                found[text] = None
                break
    return tuple(found)


def in_words(label: str) -> str:
    """The name of a class as a person would write it."""
    return " ".join(label.replace("_", " ").split())
