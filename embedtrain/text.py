"""An instruction, examples and a text into the exact string the model sees.

No template holds an end token: the tokenizer adds its special tokens around the string, after truncation, so
that a cut text keeps them (`encoder.append_eos`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedtrain.config.errors import UserError, shorten
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import FewShot, Source
from embedtrain.templates import fill, prefix, suffix

EXAMPLES_STREAM = 1  # draws of examples share no stream with other draws of (seed, step, row)


@dataclass(frozen=True, slots=True)
class Formatted:
    """What is tokenised, and how many of its leading characters stand before the text itself."""

    text: str
    instruction_chars: int


@dataclass(frozen=True, slots=True)
class SourceText:
    """How the texts of one source are written, and to how many tokens they are cut, special ones included.

    `seed` and a document's key decide whether it is written as a query, where only a share is.
    """

    query: str
    document: str
    max_query_tokens: int
    max_document_tokens: int
    instruction: str = ""
    symmetric: bool = False
    instructed_documents_fraction: float = 0.0
    few_shot: FewShot | None = None
    seed: int = 0


class ExampleRow(Protocol):
    """What an in-context example is made of."""

    @property
    def query(self) -> str:
        """What is asked."""

    @property
    def positives(self) -> Sequence[str]:
        """What answers it; the first is shown."""

    @property
    def label(self) -> str | None:
        """Its class, which answers where `few_shot.response` is label."""

    @property
    def instruction(self) -> str | None:
        """The row's own instruction, which wins over the source's."""


def source_text(fmt: TextFormat, source: Source | None = None, seed: int = 0) -> SourceText:
    """The source's own way of writing, completed by `fmt`; without a source, `fmt` alone.

    `seed` is the run's, not a stage's: every stage then writes a document the same way.
    """
    if source is None:
        return SourceText(fmt.query, fmt.document, fmt.max_query_tokens, fmt.max_document_tokens)
    max_query_tokens = source.max_query_tokens or fmt.max_query_tokens
    max_document_tokens = source.max_document_tokens or fmt.max_document_tokens
    return SourceText(
        query=fmt.query if source.query is None else source.query,
        document=fmt.document if source.document is None else source.document,
        max_query_tokens=max_query_tokens,
        max_document_tokens=max_query_tokens if source.symmetric else max_document_tokens,
        instruction=source.instruction,
        symmetric=source.symmetric,
        instructed_documents_fraction=source.instructed_documents_fraction,
        few_shot=source.few_shot,
        seed=seed,
    )


def instruction_of(own: str | None, shared: str) -> str:
    """A row's own instruction, else its source's."""
    return shared if own is None else own


def format_query(how: SourceText, text: str, instruction: str | None = None, examples: str = "") -> Formatted:
    """A query as the model sees it. The source's instruction stands where None is given."""
    return _format(how.query, text, instruction_of(instruction, how.instruction), examples)


def format_document(how: SourceText, text: str, key: int, instruction: str | None = None) -> Formatted:
    """A document as the model sees it: as a query, but never with examples, where `written_as_query` says so.

    `key` is the text's key. Training sets of in-context embedders leave documents without examples too.
    """
    template = how.query if written_as_query(how, key) else how.document
    return _format(template, text, instruction_of(instruction, how.instruction))


def written_as_query(how: SourceText, key: int) -> bool:
    """Whether the document of this key is written by the query template."""
    if how.symmetric or not how.instructed_documents_fraction:
        return how.symmetric
    return bool(written_as_queries(how, np.array([key]))[0])


def written_as_queries(how: SourceText, keys_N: np.ndarray) -> np.ndarray:
    """The same for many int64 keys, bool (N,): all of a symmetric source, else a share by seed and key."""
    if how.symmetric:
        return np.ones(len(keys_N), dtype=bool)
    mixed = _mix(_mix(np.array([how.seed % 2**64], np.uint64)) ^ keys_N.astype(np.int64).view(np.uint64))
    return (mixed >> np.uint64(11)) * 2.0**-53 < how.instructed_documents_fraction


def draw_examples(seed: int, step: int, row_id: int, num_rows: int, few_shot: FewShot) -> list[int]:
    """Numbers of distinct rows, never `row_id`, that stand as examples before this row's query.

    How many is drawn evenly from the source's fewest to its most; fewer where it has fewer other rows.
    """
    generator = np.random.default_rng([seed, step, row_id, EXAMPLES_STREAM])
    number = int(generator.integers(few_shot.min_examples, few_shot.max_examples, endpoint=True))
    others = generator.choice(num_rows - 1, min(number, num_rows - 1), replace=False)
    return [int(other) + (other >= row_id) for other in others]


def fixed_examples(seed: int, num_rows: int, number: int) -> list[int]:
    """Numbers of the distinct rows that an exported prompt shows; all of them where there are fewer."""
    generator = np.random.default_rng([seed, EXAMPLES_STREAM])
    return [int(row) for row in generator.choice(num_rows, min(number, num_rows), replace=False)]


def write_examples(
    rows: Sequence[ExampleRow],
    how: SourceText,
    cut: Callable[[str, int], str],
    fits: Callable[[str], bool],
) -> str:
    """The longest beginning of the rows' examples that `fits`, each followed by the separator.

    `cut(text, max_tokens)` shortens a query or a response. Raises UserError where a row has no label and
    labels are to answer.
    """
    if how.few_shot is None:
        return ""
    written = [write_example(row, how, how.few_shot, cut) for row in rows]
    beginnings = ("".join(written[:number]) for number in range(len(written), 0, -1))
    return next((examples for examples in beginnings if fits(examples)), "")


def write_example(row: ExampleRow, how: SourceText, few_shot: FewShot, cut: Callable[[str, int], str]) -> str:
    """One example and the separator after it."""
    response = row.positives[0] if few_shot.response == "positive" else row.label
    if response is None:
        raise UserError(
            f"few_shot.response is 'label', and the row of query {shorten(row.query)} has no label"
        )
    return (
        fill(
            few_shot.example,
            instruction=instruction_of(row.instruction, how.instruction),
            query=cut(row.query, few_shot.max_query_tokens),
            response=cut(response, few_shot.max_response_tokens),
        )
        + few_shot.separator
    )


def _format(template: str, text: str, instruction: str, examples: str = "") -> Formatted:
    before = prefix(template, instruction, examples)
    return Formatted(before + text + suffix(template, instruction), len(before))


def _mix(values_N: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014): every input bit moves every output bit."""
    values_N = values_N + np.uint64(0x9E3779B97F4A7C15)
    values_N = (values_N ^ (values_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values_N = (values_N ^ (values_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values_N ^ (values_N >> np.uint64(31))
