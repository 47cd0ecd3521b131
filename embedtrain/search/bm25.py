"""BM25 over words: finds documents, and scores any of them.

Words are runs of two or more letters, digits or underscores, in lower case, without stop words and unstemmed.
Lucene's variant: Σ over the query's words of idf · tf / (tf + k1 · (1 - b + b · length / mean length)), with
idf = ln(1 + (N - df + 0.5) / (df + 0.5)). Weights are float32 (bm25s makes them), sums are float64 in the
order of the query's words, so a document scores the same whether it was searched or asked for.
"""

from collections.abc import Iterator, Sequence

import bm25s
import numpy as np

from embedtrain.search.exact import Ranking, best

K1 = 1.5
B = 0.75
Stopwords = str | Sequence[str]  # `en`, or the words


class BM25Index:
    """The weights of every word in every document; one column a word, sorted by document."""

    def __init__(
        self, documents: Sequence[str], *, k1: float = K1, b: float = B, stopwords: Stopwords = "en"
    ) -> None:
        """Index the documents; their ids are their places."""
        self.num_documents = len(documents)
        self.stopwords = stopwords if isinstance(stopwords, str) else list(stopwords)
        self.vocabulary: dict[str, int] = {}
        self.weights = np.empty(0, np.float32)
        self.ids = np.empty(0, np.int32)
        self.ends = np.zeros(1, np.int64)  # of each column, after a 0
        words = self._words(documents)
        if any(words):
            index = bm25s.BM25(k1=k1, b=b)
            index.index(words, show_progress=False)
            self.vocabulary = index.vocab_dict
            self.weights, self.ids, self.ends = (index.scores[name] for name in ("data", "indices", "indptr"))

    def search(self, queries: Sequence[str], k: int, num_searched: int | None = None) -> Ranking:
        """The k documents with the largest score for each query; fewer where there are fewer.

        Documents without a word of the query score 0 and follow by id. Only ids below `num_searched` are
        found.
        """
        num_searched = self.num_documents if num_searched is None else num_searched
        k = max(0, min(k, num_searched))
        ids = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float64)
        if k > 0:
            for line, words in enumerate(self._words(queries)):
                ids[line], scores[line] = _best_of_line(self._all_scores(words)[:num_searched], k)
        return ids, scores

    def scores(self, query: str, ids: np.ndarray) -> np.ndarray:
        """float64 scores of these documents, the very ones that `search` gives."""
        found = np.zeros(len(ids), np.float64)
        for column in self._columns(self._words([query])[0]):
            places = np.searchsorted(self.ids[column], ids)
            places = np.minimum(places, column.stop - column.start - 1) + column.start
            found += np.where(self.ids[places] == ids, self.weights[places], np.float32(0))
        return found

    def _all_scores(self, words: Sequence[str]) -> np.ndarray:
        scores = np.zeros(self.num_documents, np.float64)
        for column in self._columns(words):
            scores[self.ids[column]] += self.weights[column]  # a document stands once in a column
        return scores

    def _columns(self, words: Sequence[str]) -> Iterator[slice]:
        """Where the weights of each word are that a document has; a word counts as often as it is asked."""
        for word in words:
            number = self.vocabulary.get(word)
            if number is not None and self.ends[number] < self.ends[number + 1]:
                yield slice(int(self.ends[number]), int(self.ends[number + 1]))

    def _words(self, texts: Sequence[str]) -> list[list[str]]:
        if not len(texts):
            return []
        words: list[list[str]] = bm25s.tokenize(
            list(texts), stopwords=self.stopwords, return_ids=False, show_progress=False
        )
        return words


def bm25_search(
    queries: Sequence[str], documents: Sequence[str], k: int, *, stopwords: Stopwords = "en"
) -> Ranking:
    """The min(k, N) documents with the largest score for each query, with the usual k1 and b."""
    return BM25Index(documents, stopwords=stopwords).search(queries, k)


def _best_of_line(scores: np.ndarray, k: int) -> Ranking:
    """`best` of one long line, without sorting all of it."""
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    ids = np.flatnonzero(scores >= threshold)
    return best(ids, scores[ids], k)
