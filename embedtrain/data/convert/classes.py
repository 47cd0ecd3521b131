"""Rows of labelled texts: another text of the same class answers, or the name of the class does."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

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
            draw = np.random.default_rng([seed, number])
            positive = other_text(members[label], text, draw)
            others = draw_classes(classes, label, num_negatives, draw)
            negatives = draw_texts([members[name] for name in others], own_texts[label], draw)
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
        draw = np.random.default_rng([seed, number])
        chosen = draw.permutation(len(names))[: num_negatives + len(positives)]
        negatives = [names[n] for n in chosen if names[n] not in positives][:num_negatives]
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


def other_text(texts: Sequence[str], own: str, draw: np.random.Generator) -> str:
    """A text of the class that is not the own one."""
    place = int(draw.integers(len(texts)))
    return texts[place] if texts[place] != own else texts[place - 1]


def draw_classes(classes: Sequence[str], own: str, num: int, draw: np.random.Generator) -> list[str]:
    """`num` other classes in a drawn order; where there are fewer, round and round."""
    drawn = draw.choice(len(classes), size=min(num + 1, len(classes)), replace=False)
    others = [classes[n] for n in drawn if classes[n] != own][:num]
    return [others[turn % len(others)] for turn in range(num)] if others else []


def draw_texts(classes: Iterable[Sequence[str]], own: set[str], draw: np.random.Generator) -> tuple[str, ...]:
    """A text of each class, none twice and none of the own class."""
    found: dict[str, None] = {}
    for texts in classes:
        for place in draw.integers(len(texts), size=TRIES):
            if texts[place] not in own and texts[place] not in found:
                found[texts[place]] = None
                break
    return tuple(found)


def in_words(label: str) -> str:
    """The name of a class as a person would write it."""
    return " ".join(label.replace("_", " ").split())
