"""How an encoder's texts are written: by each source's templates, or with the model's own prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, overload

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.config.schema import TextFormat
from embedtrain.mining.corpus import query_texts
from embedtrain.mining.judges.inquiry import Inquiry
from embedtrain.text import SourceText, source_text, written_as_queries
from embedtrain.vectors import Recipe, Side, TextEncoder

Precision = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class Written:
    """Texts, and all that makes them vectors. `places` are their numbers among all documents or rows."""

    places: np.ndarray
    texts: Sequence[str]
    encoder: TextEncoder
    recipe: Recipe
    instructions: str | Sequence[str] = ""


class Writer(Protocol):
    """Writes an inquiry's texts for one encoder."""

    @property
    def dim(self) -> int:
        """Dims of a vector."""

    def queries(self, inquiry: Inquiry) -> Written:
        """The rows' queries, without examples."""

    def documents(self, inquiry: Inquiry) -> Iterator[Written]:
        """The wanted documents, by the side whose template writes them; a side without any is left out."""


class SourceEncoder(TextEncoder, Protocol):
    """An encoder that writes texts by a source's own templates."""

    def with_templates(self, query: str, document: str) -> TextEncoder:
        """The same weights under these templates."""


@dataclass(frozen=True, slots=True)
class SourceWriter:
    """An encoder of the run, which writes texts as training writes each source's; `seed` is the run's."""

    encoder: SourceEncoder
    weights: str
    template: str
    text: TextFormat
    seed: int
    dtype: Precision = "float32"

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.encoder.dim

    def queries(self, inquiry: Inquiry) -> Written:
        """A row's own instruction wins over its source's."""
        how, rows = self._how(inquiry), inquiry.rows
        texts = query_texts(rows)
        own = [how.instruction, *rows.instructions]
        instructions = [own[number + 1] for number in rows.instruction_N.tolist()]
        recipe = self._recipe(how, "query", how.max_query_tokens)
        return Written(np.arange(len(texts)), texts, self._encoder(how), recipe, instructions)

    def documents(self, inquiry: Inquiry) -> Iterator[Written]:
        """With the source's instruction; those as queries that training writes so."""
        how, wanted = self._how(inquiry), wanted_of(inquiry)
        as_query = written_as_queries(how, inquiry.corpus.keys_N[wanted])
        sides: tuple[tuple[Side, np.ndarray], ...] = (("query", as_query), ("document", ~as_query))
        for side, chosen in sides:
            if len(places := np.flatnonzero(chosen)):
                texts = Chosen(inquiry.corpus.texts, wanted[places])
                recipe = self._recipe(how, side, how.max_document_tokens)
                yield Written(places, texts, self._encoder(how), recipe, how.instruction)

    def _how(self, inquiry: Inquiry) -> SourceText:
        return source_text(self.text, inquiry.source, self.seed)

    def _encoder(self, how: SourceText) -> TextEncoder:
        return self.encoder.with_templates(how.query, how.document)

    def _recipe(self, how: SourceText, side: Side, max_tokens: int) -> Recipe:
        template = {"query": how.query, "document": how.document}[side]
        return Recipe(self.weights, hash_json([self.template, template]), side, max_tokens, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class PromptWriter:
    """An encoder with prompts of its own."""

    encoder: TextEncoder
    weights: str
    template: str
    max_tokens: int | None = None
    dtype: Precision = "float32"

    @property
    def dim(self) -> int:
        """Dims of a vector."""
        return self.encoder.dim

    def queries(self, inquiry: Inquiry) -> Written:
        """By the prompt for queries."""
        return self._written("query", query_texts(inquiry.rows))

    def documents(self, inquiry: Inquiry) -> Iterator[Written]:
        """By the prompt for documents; those of a symmetric source by the one for queries."""
        side: Side = "query" if inquiry.source.symmetric else "document"
        yield self._written(side, Chosen(inquiry.corpus.texts, wanted_of(inquiry)))

    def _written(self, side: Side, texts: Sequence[str]) -> Written:
        recipe = Recipe(self.weights, self.template, side, self.max_tokens, dtype=self.dtype)
        return Written(np.arange(len(texts)), texts, self.encoder, recipe)


class Chosen(Sequence[str]):
    """Some of many texts, left where they are."""

    def __init__(self, texts: Sequence[str], numbers: np.ndarray) -> None:
        """Nothing is read yet."""
        self.texts, self.numbers = texts, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One text, or several."""
        if isinstance(index, slice):
            return [self.texts[int(number)] for number in self.numbers[index]]
        return self.texts[int(self.numbers[index])]


def wanted_of(inquiry: Inquiry) -> np.ndarray:
    """int64 ids of the documents that need a vector."""
    return np.arange(len(inquiry.corpus.texts)) if inquiry.wanted is None else inquiry.wanted
