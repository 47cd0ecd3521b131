"""search/bm25.py against its formula in loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.search import BM25Index, bm25_search

LETTERS = ["aa", "bb", "cc", "dd", "the", "Aa", "x"]
texts = st.lists(st.lists(st.sampled_from(LETTERS), max_size=8).map(" ".join), max_size=12)


def slow_score(query: list[str], number: int, split: list[list[str]], k1: float, b: float) -> float:
    """Lucene's BM25 of one pair."""
    length = len(split[number])
    mean_length = sum(map(len, split)) / len(split)
    score = 0.0
    for word in query:
        containing = sum(word in other for other in split)
        count = split[number].count(word)
        inverse = math.log(1 + (len(split) - containing + 0.5) / (containing + 0.5))
        if count:
            score += inverse * count / (count + k1 * (1 - b + b * length / mean_length))
    return score


def words(text: str, stopwords: list[str]) -> list[str]:
    return [word for word in text.lower().split() if len(word) > 1 and word not in stopwords]


@settings(max_examples=150, deadline=None)
@given(
    documents=texts,
    queries=texts,
    k1=st.sampled_from([0.0, 0.9, 1.5]),
    b=st.sampled_from([0.0, 0.4, 0.75, 1.0]),
    stopwords=st.sampled_from([[], ["bb"], ["the", "dd"]]),
    k=st.integers(1, 14),
)
def test_equals_the_formula(documents, queries, k1, b, stopwords, k) -> None:
    index = BM25Index(documents, k1=k1, b=b, stopwords=stopwords)
    ids, scores = index.search(queries, k)
    assert ids.shape == scores.shape == (len(queries), min(k, len(documents)))
    split = [words(text, stopwords) for text in documents]
    everything = np.arange(len(documents))
    for line, query in enumerate(queries):
        expected = [slow_score(words(query, stopwords), number, split, k1, b) for number in everything]
        given_scores = index.scores(query, everything)
        np.testing.assert_allclose(given_scores, expected, rtol=1e-6)
        order = sorted(everything, key=lambda number: (-given_scores[number], number))
        assert ids[line].tolist() == order[:k]
        assert scores[line].tolist() == given_scores[ids[line]].tolist()  # the very same numbers


def test_scores_of_any_documents_in_any_order() -> None:
    documents = ["pears", "apples and pears", "a train", "", "pears pears plums"]
    index = BM25Index(documents)
    everything = index.scores("pears plums zebra", np.arange(5))
    assert everything[4] > everything[0] > everything[1] > 0 == everything[2] == everything[3]
    chosen = np.array([4, 4, 2, 0])
    np.testing.assert_array_equal(index.scores("pears plums zebra", chosen), everything[chosen])
    assert index.scores("pears", np.empty(0, np.int64)).shape == (0,)
    assert not index.scores("zebra the", np.arange(5)).any()


def test_documents_behind_the_searched_ones_are_scored_but_not_found() -> None:
    index = BM25Index(["a train", "pears", "pears and plums"])
    ids, _ = index.search(["plums", "pears"], 3, num_searched=2)
    assert ids.tolist() == [[0, 1], [1, 0]]
    assert index.scores("plums", np.array([2]))[0] > 0


def test_stop_words() -> None:
    documents = ["the pear", "pear", "the the"]
    assert not BM25Index(documents).scores("the", np.arange(3)).any()
    assert BM25Index(documents, stopwords=[]).scores("the", np.arange(3)).argmax() == 2
    assert not BM25Index(documents, stopwords=("pear",)).scores("pear", np.arange(3)).any()


@pytest.mark.parametrize("documents", [[], ["", "the"]])
def test_nothing_to_find(documents: list[str]) -> None:
    ids, scores = bm25_search(["pears"], documents, 5)
    assert ids.tolist() == [list(range(len(documents)))]
    assert not scores.any()
    assert bm25_search([], documents, 5)[0].shape == (0, len(documents))
