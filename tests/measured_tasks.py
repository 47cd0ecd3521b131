"""A small task of every kind, of random words, for the tests that set our figures beside mteb's."""

import random

from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Reranking,
    Retrieval,
    Similarity,
    Task,
)

WORDS = "wing flow heat shock plate drag lift jet wall gas nose tail body".split()  # noqa: SIM905


def random_texts(num: int, seed: int, length: int = 5) -> tuple[str, ...]:
    """Short texts of few words, so that some are equal."""
    generator = random.Random(seed)
    return tuple(" ".join(generator.choices(WORDS, k=generator.randint(1, length))) for _ in range(num))


def unlike_texts(num: int, seed: int, length: int = 8) -> tuple[str, ...]:
    """Texts of which no two are equal."""
    found = dict.fromkeys(random_texts(4 * num, seed, length))
    assert len(found) >= num
    return tuple(found)[:num]


def label_of(text: str) -> str:
    """A class that a word decides, so that it can be learned in part."""
    return "abc"[min(WORDS.index(word) for word in text.split()) % 3]


def similarity(name: str, draw=random_texts) -> Similarity:
    """Pairs whose score is a share of common words, and chance."""
    first, second = draw(80, 1), draw(80, 2)
    generator = random.Random(3)
    common = [len(set(a.split()) & set(b.split())) for a, b in zip(first, second, strict=True)]
    return Similarity(name, first, second, scores=tuple(n + generator.choice([0.0, 1.5]) for n in common))


def pairs(name: str, draw=random_texts) -> PairClassification:
    """Pairs with random labels."""
    labels = tuple(random.Random(4).choices([0, 1], k=80))
    return PairClassification(name, draw(80, 1), draw(80, 2), labels=labels)


def bitext(name: str, draw=random_texts) -> Bitext:
    """Texts, and the same with another beginning and end."""
    first = draw(60, 1, 8)
    return Bitext(name, first, tuple(" ".join([*text.split()[1:], "extra"]) for text in first))


def classification(name: str, draw=random_texts) -> Classification:
    """Three classes."""
    train, test = draw(150, 1), draw(60, 2)
    labels = tuple(map(label_of, train))
    assert min(labels.count(label) for label in set(labels)) >= 8
    return Classification(name, train, labels, test, tuple(map(label_of, test)))


def clustering(name: str, draw=random_texts) -> Clustering:
    """Three classes, in one table."""
    texts = draw(120, 1)
    return Clustering(name, texts, tuple(map(label_of, texts)))


def retrieval(name: str, draw=random_texts) -> Retrieval:
    """Grades 0 to 3, and a relevant document that the corpus lacks."""
    documents, queries = draw(300, 1), draw(30, 2)
    generator = random.Random(5)
    judged = {
        f"q{number}": {
            f"d{i}": generator.choice([0, 1, 2, 3])
            for i, text in enumerate(documents)
            if set(query.split()) & set(text.split()) and generator.random() < 0.2
        }
        | {"absent": 1}
        for number, query in enumerate(queries)
    }
    ids = tuple(f"d{i}" for i in range(len(documents)))
    return Retrieval(name, tuple(judged), queries, ids, documents, judged)


def reranking(name: str, draw=random_texts) -> Reranking:
    """Three positives and nine negatives a query, equal texts among them."""
    queries, texts = draw(20, 3), draw(240, 4)
    documents, judged = {}, {}
    for row in range(len(queries)):
        ids = [f"{'apositive' if n < 3 else 'negative'}_q{row}_{n:05}" for n in range(12)]
        documents |= dict(zip(ids, texts[12 * row :], strict=False))
        judged[f"q{row}"] = {one: int(one.startswith("apositive")) for one in ids}
    candidates = {query: tuple(grades) for query, grades in judged.items()}
    return Reranking(
        name, tuple(judged), queries, tuple(documents), tuple(documents.values()), candidates, judged
    )


KINDS = {
    "retrieval": retrieval,
    "reranking": reranking,
    "similarity": similarity,
    "pair classification": pairs,
    "bitext": bitext,
    "classification": classification,
    "clustering": clustering,
}


def task_of(kind: str, name: str = "local", *, unlike: bool = False) -> Task:
    """The task of a kind; `unlike` has no two equal texts on a side, whose ties rounding would decide."""
    return KINDS[kind](name, unlike_texts if unlike else random_texts)
