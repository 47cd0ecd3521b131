"""Opens what scores mined candidates: rerankers of pairs here, and whatever can retrieve, from `judges`.

Dimensions: B rows, K documents a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from embedtrain.config.retrievers import (
    CrossEncoderJudge,
    EndpointJudge,
    LikelihoodJudge,
    Teacher,
    YesNoJudge,
)
from embedtrain.data.store import RowStore
from embedtrain.mining.endpoint import open_scorer
from embedtrain.mining.judges import Inquiry, Setting, open_judge
from embedtrain.model import causal_lm, cross_encoder
from embedtrain.model.scorer import Scorer

UNIT_PAIRS = 2048  # where a pair costs a pass through a model
UNIT_COMPARISONS = 2**18  # where vectors or words are compared


class Answers(Protocol):
    """What a teacher says of one source."""

    def scores(self, first_row: int, ids_BK: np.ndarray) -> np.ndarray:
        """Scores (B, K) of the documents for the rows from `first_row` on; NaN where the id is -1."""


class Reader(Protocol):
    """What gives answers; every process asks it, for the texts are shared among them."""

    def read(self, inquiry: Inquiry) -> Answers:
        """The answers about one source."""


class PairReader:
    """Reads sources with a model of pairs, which is opened for the first pair that needs a score."""

    def __init__(self, open_model: Callable[[], Scorer], tokens_per_batch: int) -> None:
        """Keep what opens the model."""
        self.open_model, self.tokens_per_batch = open_model, tokens_per_batch

    @cached_property
    def scorer(self) -> Scorer:
        """The model."""
        return self.open_model()

    def read(self, inquiry: Inquiry) -> "PairAnswers":
        """Nothing is prepared."""
        return PairAnswers(self, inquiry.rows, inquiry.corpus.texts)


@dataclass(frozen=True, slots=True)
class PairAnswers:
    """Scores of pairs of a source's queries and documents, without instructions."""

    reader: PairReader
    rows: RowStore
    texts: Sequence[str]

    def scores(self, first_row: int, ids_BK: np.ndarray) -> np.ndarray:
        """float32 (B, K); what is asked twice is scored once."""
        numbers, places = np.nonzero(ids_BK >= 0)
        rows = self.rows
        queries = rows.texts(rows.query_N[first_row : first_row + len(ids_BK)])
        pairs = [
            (queries[number], self.texts[id])
            for number, id in zip(numbers.tolist(), ids_BK[numbers, places].tolist(), strict=True)
        ]
        different = list(dict.fromkeys(pairs))
        found = self.reader.scorer.score(different, self.reader.tokens_per_batch)
        score_of = dict(zip(different, found, strict=True))
        score_BK = np.full(ids_BK.shape, np.nan, np.float32)
        score_BK[numbers, places] = [score_of[pair] for pair in pairs]
        return score_BK


def open_teacher(judge: Teacher, setting: Setting) -> Reader:
    """The teacher that a run names; its model is read when it is first asked."""
    if not scores_pairs(judge):
        return open_judge(judge, setting)
    return PairReader(lambda: PAIR_MODELS[judge.kind](judge, setting), setting.machine.encode_tokens)


def scores_pairs(judge: Teacher) -> bool:
    """Whether a pair costs a pass through a model."""
    return judge.gives == "scores" if isinstance(judge, EndpointJudge) else judge.kind in PAIR_MODELS


def unit_pairs(judge: Teacher) -> int:
    """Pairs of query and document in a unit of work, about."""
    return UNIT_PAIRS if scores_pairs(judge) else UNIT_COMPARISONS


def open_cross_encoder(judge: CrossEncoderJudge, setting: Setting) -> Scorer:
    """A sentence-transformers CrossEncoder."""
    return cross_encoder.open_cross_encoder(judge.model, scale=judge.scale, **pinned(judge, setting))


def open_likelihood(judge: LikelihoodJudge, setting: Setting) -> Scorer:
    """A causal LM that says how likely the query is."""
    lm = causal_lm.open_causal_lm(judge.model, **pinned(judge, setting))
    return causal_lm.open_likelihood(lm, judge.template)


def open_yes_no(judge: YesNoJudge, setting: Setting) -> Scorer:
    """A causal LM that is asked."""
    lm = causal_lm.open_causal_lm(judge.model, **pinned(judge, setting))
    return causal_lm.open_yes_no(lm, judge.template, judge.yes, judge.no)


def open_endpoint(judge: EndpointJudge, setting: Setting) -> Scorer:
    """A reranker behind HTTP, whose limits the processes share."""
    return open_scorer(judge, world=setting.machine.num_processes)


def pinned(judge: CrossEncoderJudge | LikelihoodJudge | YesNoJudge, setting: Setting) -> dict[str, Any]:
    """What every model from outside is opened with."""
    return {
        "revision": judge.revision,
        "sha256": judge.sha256,
        "max_tokens": judge.max_tokens,
        "device": setting.machine.device,
    }


PAIR_MODELS: dict[str, Callable[[Any, Setting], Scorer]] = {
    "cross_encoder": open_cross_encoder,
    "likelihood": open_likelihood,
    "yes_no": open_yes_no,
    "endpoint": open_endpoint,
}
