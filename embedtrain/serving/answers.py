"""What a rule says of a folder, and the rules of one server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from embedtrain.serving.served import Served


class Outcome(StrEnum):
    """How a server takes what a rule looks at, from good to bad."""

    FINE = "fine"
    REMARK = "remark"
    OTHER = "other vectors"
    REFUSES = "refuses"

    @property
    def rank(self) -> int:
        """0 is good."""
        return list(Outcome).index(self)


@dataclass(frozen=True)
class Answer:
    """What one rule found."""

    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Rule:
    """One thing that a server does with a folder, and the file of its source that says so."""

    name: str
    source: str
    judge: Callable[[Served], Answer | None]


@dataclass(frozen=True)
class Server:
    """A program that loads the folder; `read_from` is the version and place of the source that was read."""

    key: str
    name: str
    read_from: str
    rules: Sequence[Rule]


@dataclass(frozen=True)
class Finding:
    """A rule's answer for one folder."""

    server: Server
    rule: Rule
    answer: Answer


def fine(text: str) -> Answer:
    """All is as it must be."""
    return Answer(Outcome.FINE, text)


def remark(text: str) -> Answer:
    """The server gives the right vectors where whoever runs it or asks it minds this."""
    return Answer(Outcome.REMARK, text)


def other(text: str) -> Answer:
    """The server starts and gives other vectors than sentence-transformers, without an error."""
    return Answer(Outcome.OTHER, text)


def refuses(text: str) -> Answer:
    """The server does not start, or fails at every request."""
    return Answer(Outcome.REFUSES, text)
