"""What an audit finds: one value with all counts and examples, which programs and people read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from embedtrain.data.audit.licences import Licence
from embedtrain.data.audit.sample import Lengths, Sampled

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Labels:
    """How rows spread over labels. `evenness`: entropy by that of equal labels, 1 where all are equal."""

    num_labels: int
    unlabelled_rows: int
    top: Mapping[str, int]
    smallest: int
    evenness: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """A row with a fault, counted from 1, and what it is held against: another row, or a test text.

    `shared` is the longest run of words that it has in common with the test text.
    """

    row: int
    query: str
    positive: str
    where: str = ""
    against: str = ""
    shared: str = ""


@dataclass(frozen=True, slots=True)
class SourceAudit:
    """All that is known of one source. `faults` counts rows, `words` are of all texts, by side."""

    path: str
    rows: int
    texts: int
    positives: int
    negatives: int
    instructions: int
    words: Mapping[str, Lengths]
    faults: Mapping[str, int]
    examples: Mapping[str, Sequence[Example]]
    sampled: Sampled
    labels: Labels
    licence: Licence


@dataclass(frozen=True, slots=True)
class TestOverlap:
    """How many texts of one side of a test set share a run of words with the rows, in all and by source.

    `short`: those of them that have fewer words than a run, and stand in the rows as a whole.
    """

    __test__ = False

    task: str
    side: str
    texts: int
    touched: int
    short: int
    by_source: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Audit:
    """The whole audit. `between`: (later source, earlier source, fault) → rows, for duplicates."""

    sources: Mapping[str, SourceAudit]
    test: Sequence[TestOverlap] = ()
    ngram_words: int | None = None
    between: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all sources."""
        return sum(source.rows for source in self.sources.values())

    def to_json(self) -> dict[str, Any]:
        """The audit for audit.json."""
        between = [
            {"source": later, "of": earlier, "fault": fault, "rows": count}
            for (later, earlier, fault), count in self.between.items()
        ]
        return {"format": FORMAT, "rows": self.rows, **asdict(replace(self, between={})), "between": between}
