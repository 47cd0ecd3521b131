"""An endpoint that scores pairs of query and document, as a teacher."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from embedtrain.config.retrievers import EndpointJudge
from embedtrain.mining.endpoint.client import Client
from embedtrain.mining.endpoint.protocols import Batch


class EndpointScorer:
    """A reranker's raw scores. The server cuts long texts, by its model's own limit."""

    def __init__(self, judge: EndpointJudge, client: Client) -> None:
        """Ask `client` for what `judge` describes."""
        self.judge, self.client = judge, client

    def score(self, pairs: Sequence[tuple[str, str]], tokens_per_batch: int) -> np.ndarray:
        """float32 (pairs,), in the order given; neighbours of one query share a request.

        The server makes batches of its own, so `tokens_per_batch` is not read.
        """
        if not pairs:
            return np.empty(0, np.float32)
        return np.concatenate(self.client.ask_all(list(self.batches(pairs))))

    def batches(self, pairs: Sequence[tuple[str, str]]) -> Iterator[Batch]:
        """Requests of one query and at most `texts_per_request` documents, prompts written."""
        judge, size = self.judge, self.judge.texts_per_request
        for query, group in groupby(pairs, key=lambda pair: pair[0]):
            documents = [judge.document_prompt + document for _, document in group]
            for start in range(0, len(documents), size):
                yield Batch(documents[start : start + size], judge.query_prompt + query)


def open_scorer(judge: EndpointJudge, *, world: int = 1) -> EndpointScorer:
    """The judge's scorer, in one of `world` processes that share its limits; UserError where a key lacks."""
    return EndpointScorer(judge, Client(judge, world=world))
