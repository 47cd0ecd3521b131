"""Finds the candidates of one source: encodes its queries and its corpus, and searches."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from embedtrain.artifacts import hash_json
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.rows import Row, text_key
from embedtrain.mining.corpus import Corpus
from embedtrain.mining.tables import Mined
from embedtrain.search import dot, search_chunks
from embedtrain.show.progress import progress
from embedtrain.text import SourceText, source_text, written_as_queries
from embedtrain.vectors import Recipe, Side, TextEncoder, encode_texts

QUERY_CHUNK = 1024


class SourceEncoder(TextEncoder, Protocol):
    """An encoder that writes texts by a source's own templates."""

    def with_templates(self, query: str, document: str) -> TextEncoder:
        """The same weights under these templates."""


@dataclass(frozen=True, slots=True)
class Retriever:
    """An encoder, the hashes its vectors are stored under, and where; `seed` is the run's."""

    encoder: SourceEncoder
    weights: str
    template: str
    text: TextFormat
    store: Path
    tokens_per_batch: int
    device: str
    seed: int

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        how: SourceText,
        instructions: Sequence[str],
        max_tokens: int,
        label: str,
    ) -> np.ndarray:
        """Vectors from the store, or into it."""
        written = {"query": how.query, "document": how.document}[side]
        recipe = Recipe(self.weights, hash_json([self.template, written]), side, max_tokens)
        return encode_texts(
            self.encoder.with_templates(how.query, how.document),
            texts,
            recipe,
            self.store,
            instructions=instructions,
            tokens_per_batch=self.tokens_per_batch,
            label=label,
        )

    def encode_queries(self, rows: Sequence[Row], source: Source, name: str) -> np.ndarray:
        """Vectors of the rows' queries, without examples; a row's own instruction wins."""
        how = source_text(self.text, source, self.seed)
        instructions = [how.instruction if row.instruction is None else row.instruction for row in rows]
        texts = [row.query for row in rows]
        return self.encode(texts, "query", how, instructions, how.max_query_tokens, f"{name}: queries")

    def encode_documents(self, corpus: Corpus, source: Source, name: str) -> np.ndarray:
        """Vectors of documents, those as queries that training writes so; with the source's instruction."""
        how = source_text(self.text, source, self.seed)
        as_query = written_as_queries(how, corpus.keys_N)
        vectors = np.empty((len(as_query), self.encoder.dim), np.float32)
        for side, chosen in sides(as_query).items():
            texts = [corpus.texts[number] for number in chosen]
            instructions = [how.instruction] * len(texts)
            limit, label = how.max_document_tokens, f"{name}: documents"
            vectors[chosen] = self.encode(texts, side, how, instructions, limit, label)
        return vectors


def sides(as_query: np.ndarray) -> dict[Side, np.ndarray]:
    """Numbers of the documents by how they are written; a side that none has is left out."""
    numbers: dict[Side, np.ndarray] = {
        "query": np.flatnonzero(as_query),
        "document": np.flatnonzero(~as_query),
    }
    return {side: chosen for side, chosen in numbers.items() if len(chosen)}


@dataclass(slots=True)
class Tally:
    """What was found, for the table a person reads."""

    top_k: int
    encode_seconds: float = 0.0
    search_seconds: float = 0.0
    ranks: list[int] = field(default_factory=list)

    def facts(self) -> dict[str, object]:
        """Seconds, and the share of rows whose positive is among the first 1, 10 and 50."""
        ranks = np.array(self.ranks)
        shares: dict[str, object] = {
            f"positive_in_top_{top}": round(float(((ranks > 0) & (ranks <= top)).mean()), 4)
            for top in (1, 10, 50)
            if top <= self.top_k and len(ranks)
        }
        seconds = {
            "encode_seconds": round(self.encode_seconds, 1),
            "search_seconds": round(self.search_seconds, 1),
        }
        return shares | seconds


def retrieve(
    retriever: Retriever,
    rows: Sequence[Row],
    numbers: np.ndarray,
    corpus: Corpus,
    source: Source,
    name: str,
    tally: Tally,
) -> Iterator[Mined]:
    """The nearest `tally.top_k` documents of each row, some rows at a time.

    `numbers` are the places of `rows` in the source's file.
    """
    start = time.monotonic()
    queries = retriever.encode_queries(rows, source, name)
    documents = retriever.encode_documents(corpus, source, name)
    tally.encode_seconds = time.monotonic() - start
    start = time.monotonic()
    positives = _positive_ids(rows, corpus)
    done = 0
    rankings = search_chunks(
        queries, documents, tally.top_k, query_chunk=QUERY_CHUNK, device=retriever.device
    )
    with progress(f"{name}: search", total=len(rows), unit="row") as bar:
        for ids_QK, score_QK in rankings:
            part = slice(done, done + len(ids_QK))
            scores = _positive_scores(queries[part], documents, positives[part])
            worst_Q = np.array([_worst(*pair) for pair in zip(positives[part], scores, strict=True)])
            mined = Mined(
                query_row_Q=numbers[part],
                ids_QK=ids_QK,
                score_QK=score_QK.astype(np.float32),
                positive_score_Q=np.array([min(line) for line in scores], np.float32),
                positive_rank_Q=_ranks(ids_QK, worst_Q),
                positive_scores=[line.tolist() for line in scores],
            )
            done += len(ids_QK)
            tally.ranks += mined.positive_rank_Q.tolist()
            tally.search_seconds = time.monotonic() - start
            bar.advance(len(ids_QK))
            yield mined


def _positive_ids(rows: Sequence[Row], corpus: Corpus) -> list[np.ndarray]:
    """Document ids of each row's positives, in the row's order."""
    keys = [text_key(text) for row in rows for text in row.positives]
    ends = np.cumsum([len(row.positives) for row in rows])
    return np.split(corpus.ids(keys), ends[:-1])


def _positive_scores(
    queries: np.ndarray, documents: np.ndarray, positives: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The same float64 score that the search gives, for each positive of each query."""
    return [dot(query[None, :], documents[ids]) for query, ids in zip(queries, positives, strict=True)]


def _worst(ids: np.ndarray, scores: np.ndarray) -> int:
    """The positive that ranks last."""
    return int(ids[np.lexsort((ids, -scores))[-1]])


def _ranks(ids_QK: np.ndarray, wanted_Q: np.ndarray) -> np.ndarray:
    """Rank from 1 of the wanted document in each line; 0 where it is not there."""
    hit_QK = ids_QK == wanted_Q[:, None]
    return np.where(hit_QK.any(axis=1), hit_QK.argmax(axis=1) + 1, 0)
