"""InfoNCE and sigmoid with all that stands in their denominators, in plain Python loops and float64.

Places: `a` a query among all, `c` a document among the candidates.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import (
    AboveFraction,
    AboveMargin,
    AnyMixing,
    ListMixing,
    Mask,
    SameLabel,
    SameText,
    TeacherRelevant,
)
from embedtrain.config.terms import InfoNCE, Sigmoid


class Undecided(Exception):
    """Two documents are equally hard to rounding: which one is mixed?"""


Vector = list[float]
Place = tuple[str, int]
"""("query", place among A) or ("document", place among C)."""


def above(x: float, y: float) -> bool:
    """x > y by more than rounding."""
    return x > y + 1e-12


def dot(x: Vector, y: Vector) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def normalized(x: Vector) -> Vector:
    length = math.sqrt(dot(x, x))
    return [a / length for a in x]


class Slow:
    """The batch as lists, with the questions that the definitions ask."""

    def __init__(self, g: Gathered) -> None:
        self.g = g
        self.vectors = {"student": self.of(g.queries_AD, g.candidates_CD)}
        if g.teacher_vectors:
            teacher = g.teacher_vectors
            self.vectors["teacher"] = self.of(teacher.queries_NK, teacher.documents_CK)
        self.index, self.owner = g.query_index_A.tolist(), g.owner_C.tolist()
        self.is_positive = g.is_positive_C.tolist()
        self.key = {"query": g.query_key_A.tolist(), "document": g.document_key_C.tolist()}
        self.label = {"query": g.label_A.tolist(), "document": g.label_C.tolist()}

    @staticmethod
    def of(queries: Tensor, documents: Tensor) -> dict[str, list[Vector]]:
        return {
            "query": [normalized(v) for v in queries.tolist()],
            "document": [normalized(v) for v in documents.tolist()],
        }

    def vector(self, place: Place, judge: str = "student") -> Vector:
        return self.vectors[judge][place[0]][place[1]]

    def cosine(self, x: Place, y: Place, judge: str = "student") -> float:
        return dot(self.vector(x, judge), self.vector(y, judge))

    def local(self) -> list[int]:
        return self.g.local_B.tolist()

    def own(self, a: int, c: int) -> bool:
        return self.owner[c] == self.index[a]

    def positives(self, a: int) -> list[int]:
        return [c for c, positive in enumerate(self.is_positive) if positive and self.own(a, c)]

    def documents(self, a: int, s: InfoNCE | Sigmoid) -> list[Place]:
        """The documents that the switches let stand against query `a`."""
        allowed = []
        for c, positive in enumerate(self.is_positive):
            other = s.in_batch_positives if positive else s.in_batch_negatives
            if (s.own_negatives and not positive) if self.own(a, c) else other:
                allowed.append(("document", c))
        return allowed

    def other_documents(self, a: int) -> list[Place]:
        return [("document", c) for c in range(len(self.owner)) if not self.own(a, c)]

    def other_queries(self, a: int) -> list[Place]:
        return [("query", i) for i in range(len(self.index)) if i != a]

    def is_hidden(self, mask: Mask, a: int, positive: int, left: Place, column: Place) -> bool:
        kind, place = column
        match mask:
            case SameText():
                texts = {self.key["query"][a], *(self.key["document"][c] for c in self.positives(a))}
                return self.key[kind][place] in texts
            case SameLabel():
                return self.label["query"][a] == self.label[kind][place] != 0
            case AboveMargin():
                own = self.cosine(("query", a), ("document", positive), mask.judge)
                return above(self.cosine(left, column, mask.judge), own + mask.margin)
            case AboveFraction():
                own = self.cosine(("query", a), ("document", positive), mask.judge)
                return above(self.cosine(left, column, mask.judge), own - (1 - mask.fraction) * abs(own))
            case TeacherRelevant():
                scores = self.g.teacher_scores[mask.teacher].tolist()
                return kind == "document" and self.own(a, place) and scores[place] >= mask.threshold
        raise AssertionError(mask)

    def visible(
        self, s: InfoNCE | Sigmoid, a: int, positive: int, left: Place, columns: list[Place]
    ) -> list[Place]:
        """Those of the columns that no mask hides."""
        return [x for x in columns if not any(self.is_hidden(m, a, positive, left, x) for m in s.masks)]

    def visible_documents(self, s: InfoNCE | Sigmoid, a: int) -> list[Place]:
        """The documents of the denominator that every pair of the query sees."""
        seen = [self.visible(s, a, c, ("query", a), self.documents(a, s)) for c in self.positives(a)]
        return [x for x in seen[0] if all(x in other for other in seen)]

    def parents(self, s: InfoNCE, mixing: AnyMixing, a: int) -> list[Vector]:
        seen = self.visible_documents(s, a)
        if mixing.parents == "own_negatives":
            return [self.vector(x) for x in seen if self.own(a, x[1])]
        ranked = sorted(seen, key=lambda x: -self.cosine(("query", a), x))
        for x, y in itertools.pairwise(ranked):
            differ = math.dist(self.vector(x), self.vector(y)) > 1e-9
            if differ and not above(self.cosine(("query", a), x), self.cosine(("query", a), y)):
                raise Undecided
        return [self.vector(x) for x in ranked[: mixing.num_parents]]

    def mixed(self, s: InfoNCE, number: int, a: int) -> list[Vector]:
        """The mixed negatives that the term's mixing `number` makes for query `a`."""
        mixing = s.mixing[number]
        parents = self.parents(s, mixing, a)
        if len(parents) < 2:
            return []
        if isinstance(mixing, ListMixing):
            scores = [math.exp(dot(self.vector(("query", a)), n) / mixing.temperature) for n in parents]
            return [normalized([dot(scores, list(x)) for x in zip(*parents, strict=True)])]
        rng, size = np.random.default_rng([self.g.draw_seed, number]), (len(self.index), mixing.count)
        row = sorted(self.index).index(self.index[a])
        first, second = rng.random(size)[row], rng.random(size)[row]
        shares = rng.beta(mixing.alpha, mixing.beta, size)[row]
        made = []
        for u, v, share in zip(first, second, shares, strict=True):
            n_j = parents[int(u * len(parents))]
            n_k = [n for i, n in enumerate(parents) if i != int(u * len(parents))][
                int(v * (len(parents) - 1))
            ]
            made.append(normalized([share * x + (1 - share) * y for x, y in zip(n_j, n_k, strict=True)]))
        return made


def slow_infonce(g: Gathered, s: InfoNCE, temperature: float | None = None) -> tuple[float, float]:
    """Sum and count of the definition, one logit at a time."""
    slow = Slow(g)
    temperature = temperature or float(s.temperature)
    forward = [slow_negatives(slow, s, temperature), *([slow_backward(slow, s, temperature)] * s.symmetric)]
    totals, counts = [], []
    for negatives_of in forward:
        for a in slow.local():
            losses, weights = [], []
            for c in slow.positives(a):
                positive = slow.cosine(("query", a), ("document", c)) / temperature
                if negatives := negatives_of(a, c):
                    ratio = math.fsum(math.exp(n - positive) for n in negatives)
                    weights.append((ratio / (1 + ratio)) ** s.focal.gamma if s.focal else 1.0)
                    losses.append(weights[-1] * math.log1p(ratio))
            if losses:
                totals.append(math.fsum(losses) / len(losses))
                normalize = s.focal is not None and s.focal.normalize
                counts.append(math.fsum(weights) / len(weights) if normalize else 1.0)
    return math.fsum(totals) / len(forward), math.fsum(counts) / len(forward)


Negatives = Callable[[int, int], list[float]]
"""(query, its positive) -> the negatives' logits."""


def slow_negatives(slow: Slow, s: InfoNCE, temperature: float) -> Negatives:
    """Query against documents, and the other blocks that are on, and mixed negatives."""
    shared = [number for number, mixing in enumerate(s.mixing) if mixing.shared]
    everyones = [h for number in shared for a in range(len(slow.index)) for h in slow.mixed(s, number, a)]

    def negatives(a: int, c: int) -> list[float]:
        query, document = ("query", a), ("document", c)
        cells = [(query, x) for x in slow.visible(s, a, c, query, slow.documents(a, s))]
        if s.query_query:
            cells += [(query, x) for x in slow.visible(s, a, c, query, slow.other_queries(a))]
        if s.document_document:
            cells += [(document, x) for x in slow.visible(s, a, c, document, slow.other_documents(a))]
        if s.document_query:
            cells += [(document, x) for x in slow.visible(s, a, c, document, slow.other_queries(a))]
        logits = []
        for left, column in cells:
            hard = left == query and column[0] == "document" and slow.own(a, column[1])
            cosine = slow.cosine(left, column)
            logits.append(cosine / temperature + (s.hardness * cosine if hard else 0.0))
        own = [h for n, mixing in enumerate(s.mixing) if not mixing.shared for h in slow.mixed(s, n, a)]
        return logits + [dot(slow.vector(query), h) / temperature for h in own + everyones]

    return negatives


def slow_backward(slow: Slow, s: InfoNCE, temperature: float) -> Negatives:
    """The positive against queries."""

    def negatives(a: int, c: int) -> list[float]:
        left = ("document", c)
        seen = slow.visible(s, a, c, left, slow.other_queries(a))
        return [slow.cosine(left, x) / temperature for x in seen]

    return negatives


def slow_sigmoid(g: Gathered, s: Sigmoid, temperature: float, bias: float) -> tuple[float, int]:
    """Sum and count of the definition, one pair at a time."""
    slow, totals = Slow(g), []

    def loss(a: int, place: Place, sign: int) -> float:
        return math.log1p(math.exp(-sign * (slow.cosine(("query", a), place) / temperature + bias)))

    for a in slow.local():
        if negatives := slow.visible_documents(s, a):
            terms = [loss(a, x, -1) for x in negatives]
            terms += [loss(a, ("document", c), 1) for c in slow.positives(a)]
            totals.append(math.fsum(terms))
    return math.fsum(totals), len(totals)
