"""What a reranker adds to the retriever whose candidates it sorts anew, with intervals over test queries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedtrain.evaluation.measure import NUM_RANKED, by_falling_id, encode
from embedtrain.evaluation.metrics import rank_documents, retrieval_values
from embedtrain.evaluation.tasks import Retrieval
from embedtrain.model.scorer import Scorer
from embedtrain.model.st import Embedder
from embedtrain.search import search
from embedtrain.show.progress import progress
from tools.paired import query_interval

METRIC = "ndcg@10"
Values = dict[str, dict[str, np.ndarray]]
"""nDCG@10 of each query, by what ranks and by task."""


def measure(
    embedder: Embedder,
    scorer: Scorer,
    tasks: Sequence[Retrieval],
    num_candidates: int,
    tokens_per_batch: int,
) -> Values:
    """nDCG@10 of the retriever, of the reranker on its candidates, and of both ranks fused."""
    values: Values = {"retriever": {}, "reranker": {}, "both": {}}
    with progress(f"rerank {embedder.name}", total=len(tasks), unit="task") as bar:
        for task in tasks:
            ids, names = find_candidates(embedder, task, num_candidates)
            texts = dict(zip(task.document_ids, task.documents, strict=True))
            pairs = [
                (query, texts[name]) for query, row in zip(task.queries, names, strict=True) for name in row
            ]
            scores = scorer.score(pairs, tokens_per_batch).reshape(ids.shape).astype(np.float64)
            ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
            both = 1 / (61 + ranks) + 1 / (61 + np.arange(ids.shape[1]))
            first = -np.arange(ids.shape[1]) * np.ones(ids.shape)
            for what, by in {"retriever": first, "reranker": scores, "both": both}.items():
                ranked = [rank_documents(*line, NUM_RANKED) for line in zip(names, by, strict=True)]
                judged = [task.judged[name] for name in task.query_ids]
                values[what][task.name] = retrieval_values(ranked, judged)[METRIC]
            bar.advance(1)
    return values


def find_candidates(
    embedder: Embedder, task: Retrieval, num_candidates: int
) -> tuple[np.ndarray, list[list[str]]]:
    """The nearest documents of every query, best first: their places and ids."""
    order = by_falling_id(task)
    queries = encode(embedder, task.queries, side="query")
    documents = encode(embedder, [task.documents[i] for i in order], side="document")
    ids, _ = search(queries, documents, min(num_candidates, len(documents)))
    return ids, [[task.document_ids[order[i]] for i in row] for row in ids]


def figures(values: Values) -> dict[str, Any]:
    """The differences to the retriever with their intervals first, then the means; in points of 100."""
    told: dict[str, Any] = {}
    for what in ("reranker", "both"):
        gains = [100 * (values[what][task] - values["retriever"][task]) for task in values[what]]
        low, high = query_interval(gains)
        mean = float(np.mean([gain.mean() for gain in gains]))
        told[f"{what}_less_retriever"] = {"mean": mean, "low": low, "high": high}
    told[METRIC] = {
        what: {task: 100 * float(of_queries.mean()) for task, of_queries in by_task.items()}
        for what, by_task in values.items()
    }
    return told


def verdict_of(name: str, result: Mapping[str, Any]) -> str:
    """Whether the reranker beats the model whose candidates it sorts."""
    gain = result["reranker_less_retriever"]
    told = f"{gain['mean']:+.2f} points of nDCG@10 [{gain['low']:+.2f}, {gain['high']:+.2f}]"
    if gain["low"] > 0:
        return f"The reranker beats {name}: {told}."
    if gain["high"] < 0:
        return f"The reranker is worse than {name}: {told}; no claim is made from it."
    return f"Nothing tells the reranker from {name}: {told}; no claim is made from its scores."
