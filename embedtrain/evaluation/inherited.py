"""A model's vectors in fewer dims or bits: cut and renormalised, in int8, or as signs alone.

Each form is made from the full unit vectors of a task, which are already there: nothing is encoded again.
Dimensions: T texts, S stored texts (what an index would hold), D dims of a full vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import frexp, ldexp
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from embedtrain.config.errors import UserError
from embedtrain.evaluation import metrics
from embedtrain.evaluation.measure import BYTES_PER_DIM, encode, measure, prompted, unit
from embedtrain.evaluation.results import Result
from embedtrain.evaluation.tasks import Classification, Clustering, Pairs, Reranking, Retrieval, Task
from embedtrain.search import Ranking, search, search_signs

if TYPE_CHECKING:
    from embedtrain.model.st import Embedder, Side

CUT_NAME = " dims"
LEVELS = 255  # steps between the least and the greatest value of a dim in int8
SHORT_BITS = 20  # of the mantissa of a sign's value: sums of its squares are exact in float64


class Form(Protocol):
    """In how few dims or bits vectors are kept, and how they are then searched."""

    @property
    def name(self) -> str:
        """How tables call it."""
        ...

    def find(self, queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
        """The exact search among vectors of this form."""
        ...

    def fits(self, dim: int) -> bool:
        """Whether vectors of so many dims can be brought to it."""
        ...

    def num_bytes(self, dim: int) -> int:
        """Bytes of one vector that had so many dims."""
        ...

    def convert(self, vectors_TD: np.ndarray, stored: Callable[[], np.ndarray]) -> np.ndarray:
        """What is left of unit vectors, as unit vectors; `stored` gives those of the stored texts."""
        ...


@dataclass(frozen=True)
class Cut:
    """The first dims alone, brought to length 1 again (Matryoshka)."""

    dims: int

    @property
    def name(self) -> str:
        """`256 dims`."""
        return f"{self.dims:,}{CUT_NAME}"

    def find(self, queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
        """By cosine."""
        return search(queries, documents, k)

    def fits(self, dim: int) -> bool:
        """Only longer vectors can be cut."""
        return self.dims < dim

    def num_bytes(self, dim: int) -> int:
        """Of float32."""
        return BYTES_PER_DIM * self.dims

    def convert(self, vectors_TD: np.ndarray, stored: Callable[[], np.ndarray]) -> np.ndarray:
        """The first dims, float32."""
        return unit(vectors_TD[:, : self.dims])


@dataclass(frozen=True)
class Int8:
    """A byte a dim: 256 buckets between the least and the greatest value in the stored texts.

    Queries and documents are kept so; each value stands for the middle of its bucket.
    """

    name: ClassVar[str] = "int8"

    def find(self, queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
        """By cosine."""
        return search(queries, documents, k)

    def fits(self, dim: int) -> bool:
        """Always."""
        return True

    def num_bytes(self, dim: int) -> int:
        """A byte a dim."""
        return dim

    def convert(self, vectors_TD: np.ndarray, stored: Callable[[], np.ndarray]) -> np.ndarray:
        """To bytes and back, float32."""
        buckets = Buckets.of(stored())
        return unit(buckets.values(buckets.codes(vectors_TD)))


@dataclass(frozen=True)
class Binary:
    """A bit a dim, the sign, of queries and documents: they are compared by the bits that differ."""

    name: ClassVar[str] = "binary"

    def find(self, queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
        """By Hamming distance."""
        return search_signs(queries, documents, k)

    def fits(self, dim: int) -> bool:
        """Always."""
        return True

    def num_bytes(self, dim: int) -> int:
        """A bit a dim, in whole bytes."""
        return (dim + 7) // 8

    def convert(self, vectors_TD: np.ndarray, stored: Callable[[], np.ndarray]) -> np.ndarray:
        """Signs, float64: 1 - cosine is exactly twice the share of bits that differ, in any order of sums."""
        side = short(vectors_TD.shape[1] ** -0.5)
        return np.where(vectors_TD > 0, side, -side)


@dataclass(frozen=True)
class Buckets:
    """The least value and the width of a bucket of each dim, float32 (D,); a constant dim has width 0."""

    start_D: np.ndarray
    step_D: np.ndarray

    @classmethod
    def of(cls, stored_SD: np.ndarray) -> Buckets:
        """Those of stored vectors."""
        least_D, greatest_D = stored_SD.min(axis=0), stored_SD.max(axis=0)
        return cls(least_D, (greatest_D - least_D) / LEVELS)

    def codes(self, vectors_TD: np.ndarray) -> np.ndarray:
        """Buckets from -128 to 127, int8; a value outside the range falls into the nearest."""
        width_D = np.where(self.step_D == 0, 1, self.step_D)
        codes_TD = np.clip(np.floor((vectors_TD - self.start_D) / width_D), 0, LEVELS)
        return (codes_TD - 128).astype(np.int8)

    def values(self, codes_TD: np.ndarray) -> np.ndarray:
        """The middles of the buckets, float32."""
        return self.start_D + (codes_TD.astype(np.float32) + 128.5) * self.step_D


QUANTISED: Mapping[str, Form] = {"int8": Int8(), "binary": Binary()}


def short(value: float) -> float:
    """The value to a few bits of its mantissa."""
    mantissa, exponent = frexp(value)
    return ldexp(round(ldexp(mantissa, SHORT_BITS)), exponent - SHORT_BITS)


def forms_of(truncation: Sequence[int], quantisation: Sequence[str]) -> list[Form]:
    """Cuts from the longest down, then the others; each once."""
    cuts: list[Form] = [Cut(dims) for dims in sorted(set(truncation), reverse=True)]
    return cuts + [QUANTISED[name] for name in dict.fromkeys(quantisation)]


def dims_of(form: str) -> int:
    """Dims that the cut of this name keeps; 0 of another form."""
    return int(form.removesuffix(CUT_NAME).replace(",", "")) if form.endswith(CUT_NAME) else 0


def check_forms(forms: Sequence[Form], dims: Mapping[str, int]) -> None:
    """Raise UserError where a form fits none of the models, `dims` by name."""
    for form in forms:
        if not any(form.fits(dim) for dim in dims.values()):
            known = ", ".join(f"{name} {dim:,}" for name, dim in dims.items())
            raise UserError(f"truncation to {form.name}: no model has more dims to cut (dims: {known})")


@dataclass(frozen=True)
class InForm:
    """An embedder under the prompts of a task, its vectors kept in a form."""

    embedder: Embedder
    form: Form
    task: Task

    @property
    def name(self) -> str:
        """The embedder's."""
        return self.embedder.name

    @property
    def dim(self) -> int:
        """The embedder's, before."""
        return self.embedder.dim

    def for_task(self, task: str) -> InForm:
        """It is of one task already."""
        return self

    @cached_property
    def stored_SD(self) -> np.ndarray:
        """Full vectors of what an index would hold."""
        return encode(self.embedder, *stored_texts(self.task))

    def encode(self, texts: Sequence[str], *, side: Side, normalize: bool = True) -> np.ndarray:
        """What is left of the texts' unit vectors; they have length 1 with or without `normalize`."""
        vectors = unit(np.asarray(self.embedder.encode(texts, side=side, normalize=False)))
        return self.form.convert(vectors, lambda: self.stored_SD)


def stored_texts(task: Task) -> tuple[Sequence[str], Side]:
    """The documents of retrieval, the training texts that classification uses, else all texts."""
    match task:
        case Retrieval() | Reranking():
            return task.documents, "document"
        case Classification():
            used = sorted(set().union(*metrics.draw_samples(task.train_labels)))
            return [task.train_texts[i] for i in used], ""
        case Pairs() | Clustering():
            return task.texts, ""


def measure_in(form: Form, embedder: Embedder, task: Task) -> Result:
    """`measure` with the vectors kept in a form."""
    own = InForm(prompted(embedder, task), form, task)
    result = measure(own, task, find=form.find)
    return replace(result, form=form.name, num_bytes=form.num_bytes(embedder.dim))
