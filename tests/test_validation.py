"""Validation of encoders: the vectors of their export, the mean score, the loss on a few examples."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import DOCUMENTS, INSTRUCTED, QUERIES, source_prompts, tiny_encoder, tiny_export

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row
from embedtrain.evaluation.measure import measure
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.tasks import Retrieval
from embedtrain.evaluation.validation import Validated, example_loss, mean_score
from embedtrain.model.export import export_encoder
from embedtrain.model.load import open_encoder
from embedtrain.model.st import open_sentence_transformer

ROWS = [
    Row(QUERIES[0], (DOCUMENTS[0], DOCUMENTS[2]), (DOCUMENTS[1], "nothing of the kind")),
    Row(QUERIES[1], (DOCUMENTS[1],), (DOCUMENTS[1] + " or so",)),
    Row(QUERIES[2], (DOCUMENTS[2],)),
    Row("the same answer", (DOCUMENTS[1],), (DOCUMENTS[0],)),
]


def test_it_encodes_as_its_export_does(tmp_path: Path) -> None:
    encoder = tiny_encoder(tmp_path / "base", text=INSTRUCTED, pool_instruction=False)
    sources = source_prompts(encoder, {"faq": {"instruction": "Find the answer"}}, tasks=["faq-test"])
    export_encoder(encoder, tmp_path / "model", sources=sources)
    theirs = open_sentence_transformer(tmp_path / "model")
    reopened = Validated(open_encoder(tmp_path / "model"), "reopened")
    ours = Validated(encoder, "ours", sources)
    seen = []
    for task in ("faq-test", "other"):
        for side in ("query", "document", ""):
            expected = theirs.for_task(task).encode(QUERIES, side=side)
            assert np.abs(ours.for_task(task).encode(QUERIES, side=side) - expected).max() < 1e-5
            assert np.abs(reopened.for_task(task).encode(QUERIES, side=side) - expected).max() < 1e-5
            seen.append(expected)
    assert np.abs(seen[0] - seen[3]).max() > 1e-3  # the premise: the task has a prompt of its own
    assert ours.dim == theirs.dim


def test_it_is_measured_as_its_export_is(tmp_path: Path) -> None:
    encoder, folder = tiny_export(tmp_path)
    judged = {f"q{i}": {f"d{i}": 1} for i in range(3)}
    ids = tuple(judged), tuple(f"d{i}" for i in range(3))
    task = Retrieval("t", ids[0], tuple(QUERIES), ids[1], tuple(DOCUMENTS), judged)
    ours = measure(Validated(encoder, "ours"), task)
    theirs = measure(open_sentence_transformer(folder), task)
    assert ours.figure.value == pytest.approx(theirs.figure.value, abs=1e-9)


def slow_loss(encoder: Validated, rows: list[Row], temperature: float) -> float:
    """Each query against each text, one at a time."""
    losses = []
    for row in rows:
        query = encoder.encode([row.query], side="query")[0].astype(float)
        texts: list[str] = []
        for other in rows:
            for text in (other.positives[0], *other.negatives):
                hidden = text in row.positives and text != row.positives[0]
                if text not in texts and not hidden:
                    texts.append(text)
        vectors = [encoder.encode([text], side="document")[0].astype(float) for text in texts]
        scores = [sum(a * b for a, b in zip(query, v, strict=True)) / temperature for v in vectors]
        losses.append(
            math.log(sum(math.exp(score) for score in scores)) - scores[texts.index(row.positives[0])]
        )
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_on_examples_equals_a_slow_one(tmp_path: Path, temperature: float) -> None:
    encoder = Validated(tiny_encoder(tmp_path / "base"), "tiny")
    found = example_loss(encoder, ROWS, temperature)
    assert found == pytest.approx(slow_loss(encoder, ROWS, temperature), rel=1e-5)
    fewer = [Row(row.query, row.positives[:1], row.negatives) for row in ROWS]
    assert example_loss(encoder, fewer, temperature) > found  # the premise: a second positive was hidden


def result(value: float) -> Result:
    return Result("m", "t", "retrieval", "ndcg@10", {"ndcg@10": Figure(value, 0.0, 1.0)}, {}, None, 0.0)


def test_the_score_is_the_mean_over_tasks() -> None:
    assert mean_score([result(10.0), result(40.0), result(25.0)]) == 25.0


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^m: its ndcg@10 on 't' is nan$"):
        mean_score([result(10.0), result(math.nan)])
    encoder = tiny_encoder(tmp_path / "base")
    with torch.no_grad():
        next(iter(dict(encoder.trainable()).values())).fill_(math.nan)
    with pytest.raises(UserError, match=r"^broken: its vectors of the examples are not finite$"):
        example_loss(Validated(encoder, "broken"), ROWS, 1.0)
