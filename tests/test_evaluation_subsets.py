"""Subsets: within their tokens, the same each time, named by what they were cut from."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from word_embedder import WordEmbedder

from embedtrain.config.errors import UserError
from embedtrain.evaluation.groups import size_text
from embedtrain.evaluation.measure import measure
from embedtrain.evaluation.tasks import Classification, Clustering, Retrieval, Similarity, Task, cut_tasks


def words(texts: Sequence[str]) -> list[int]:
    """Words of each text, standing for tokens."""
    return [len(text.split()) for text in texts]


def retrieval(num: int) -> Retrieval:
    """`num` queries with a document each, 10 words a document, and as many other documents."""
    names = tuple(f"d{i}" for i in range(2 * num))
    return Retrieval(
        name="r",
        query_ids=tuple(f"q{i}" for i in range(num)),
        queries=tuple(f"query {i}" for i in range(num)),
        document_ids=names,
        documents=tuple(f"{name} " * 10 for name in names),
        judged={f"q{i}": {f"d{i}": 1} for i in range(num)},
    )


def pairs(num: int) -> Similarity:
    """`num` pairs of 4 words."""
    numbers = range(num)
    return Similarity(
        name="s",
        first=tuple(f"first {i}" for i in numbers),
        second=tuple(f"second {i}" for i in numbers),
        scores=tuple(float(i) for i in numbers),
    )


def classes(num: int) -> Classification:
    """`num` texts of 3 words to learn from and as many to test on, in 5 classes of unlike sizes."""
    labels = tuple(f"c{min(i % 8, 4)}" for i in range(num))
    return Classification(
        name="c",
        train_texts=tuple(f"train text {i}" for i in range(num)),
        train_labels=labels,
        test_texts=tuple(f"test text {i}" for i in range(num)),
        test_labels=labels,
    )


def groups(num: int) -> Clustering:
    """`num` texts of 4 words in 3 groups."""
    texts, labels = tuple(f"a longer text {i}" for i in range(num)), tuple(i % 3 for i in range(num))
    return Clustering(name="g", texts=texts, labels=labels)


@pytest.mark.parametrize(
    "task", [retrieval(100), pairs(100), classes(100), groups(100)], ids=lambda t: t.kind
)
def test_subset(task: Task) -> None:
    small = task.subset(200, words)
    used = sum(words(small.texts))
    assert 150 <= used <= 200
    assert small.full_sizes == task.sizes
    assert small == task.subset(200, words), "the same each time"
    assert set(small.texts) < set(task.texts)
    assert task.subset(100_000, words) is task, "what fits stays whole"
    assert small.subset(100, words).full_sizes == task.sizes, "named by what it was cut from first"


def test_subset_keeps_rows_together() -> None:
    small = pairs(100).subset(200, words)
    for first, second, score in zip(small.first, small.second, small.scores, strict=True):
        assert (first, second) == (f"first {int(score)}", f"second {int(score)}")


def test_subset_of_retrieval_keeps_judged_documents_and_adds_others() -> None:
    small = retrieval(100).subset(400, words)
    judged = {name for query in small.query_ids for name in small.judged[query]}
    assert judged <= set(small.document_ids)
    assert len(small.queries) == 25  # 300 words of queries with their documents
    assert len(small.documents) == 35  # and 100 words of others
    assert dict(zip(small.document_ids, small.documents, strict=True))[
        "d0" if "d0" in judged else min(judged)
    ]


def test_subset_of_classes_is_balanced() -> None:
    small = classes(100).subset(200, words)
    counts = [small.train_labels.count(label) for label in set(small.train_labels)]
    assert len(counts) == 5
    assert max(counts) - min(counts) <= 1
    assert set(small.test_labels) <= set(small.train_labels)


def test_larger_subset_holds_the_smaller() -> None:
    small, large = pairs(100).subset(100, words), pairs(100).subset(200, words)
    assert set(small.first) < set(large.first)


def test_subset_does_not_depend_on_the_order_of_the_file() -> None:
    task = pairs(100)
    turned = replace(task, first=task.first[::-1], second=task.second[::-1], scores=task.scores[::-1])
    assert set(task.subset(200, words).first) == set(turned.subset(200, words).first)


@pytest.mark.parametrize("task", [retrieval(9), pairs(9), classes(9), groups(9)], ids=lambda t: t.kind)
def test_too_few_tokens(task: Task) -> None:
    with pytest.raises(UserError) as error:
        task.subset(5, words)
    assert str(error.value).startswith(f"task '{task.name}': 5 tokens hold ")


def test_cut_tasks_share_the_tokens() -> None:
    tasks = [pairs(100), groups(10), retrieval(100)]  # 400, 40 and 2,200 words
    cut = cut_tasks(tasks, 500, words)
    assert cut[1] is tasks[1], "the small one stays whole, and leaves 230 to each of the others"
    used = [sum(words(task.texts)) for task in cut]
    assert 220 <= used[0] <= 230
    assert 215 <= used[2] <= 230
    assert cut_tasks(tasks, 10_000, words) == tasks


@pytest.mark.parametrize(
    "task", [retrieval(100), pairs(100), classes(100), groups(100)], ids=lambda t: t.kind
)
def test_subset_is_measured_and_named(task: Task) -> None:
    result = measure(WordEmbedder(), task.subset(200, words))
    assert result.full_sizes == task.sizes
    assert " of 100 " in size_text(result)
    assert 0 <= result.figure.low <= result.figure.high <= 100 or result.kind == "similarity"
