"""Which texts of a source have a label in common. Pure."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from embedtrain.data.store import RowStore
from embedtrain.mining.lists import Lists, Texts


@dataclass(frozen=True, slots=True)
class Labels:
    """A text has the labels of all rows whose query or positive it is, whether they were mined or not.

    `of_query` are the labels of each mined row's query, `texts` the corpus's texts with each label.
    """

    of_query: list[np.ndarray]
    texts: Lists

    @classmethod
    def of(cls, rows: RowStore, query_Q: np.ndarray, texts: Texts) -> Self:
        """From all rows of a source; `query_Q` are the text ids of the mined rows' queries."""
        label_P = np.repeat(rows.label_N, np.diff(rows.positive_starts))
        labels = np.concatenate([rows.label_N, label_P]).astype(np.int64)
        ids = np.concatenate([rows.query_N, rows.positive_P])[labels >= 0]
        labels, numbers = labels[labels >= 0], texts.numbers(rows.keys_M[ids])
        by_text, there = Lists.of(ids, labels, rows.num_texts), numbers >= 0
        return cls(
            [by_text[number] for number in query_Q],
            Lists.of(labels[there], numbers[there], len(rows.labels)),
        )

    def shared(self, rows: slice, text_QK: np.ndarray, num_texts: int) -> np.ndarray:
        """same_QK bool: the candidate has a label of the query, for the mined rows of a slice."""
        lines = self.of_query[rows]
        same_QK = np.zeros(text_QK.shape, bool)
        for place in range(max(map(len, lines), default=0)):
            label_Q = np.array([line[place] if place < len(line) else -1 for line in lines], np.int64)
            same_QK |= self.texts.contain(text_QK, label_Q, num_texts)
        return same_QK

    def texts_of(self, row: int) -> np.ndarray:
        """The texts that have a label of this mined row's query."""
        return np.concatenate([np.zeros(0, np.int64), *(self.texts[label] for label in self.of_query[row])])
