"""A base in 4 bits below adapters: what is refused, and where bitsandbytes is installed, what it gives."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import make_batch, step_gradients, tiny_encoder, words

from embedtrain.config.check import fit_faults
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import open_encoder
from embedtrain.model.quantised import drift, quantise

NEEDS_LIBRARY = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
TEXTS = [words(i, 8) for i in range(6)]


def run_of(tuning: str) -> Run:
    stage = {"kind": "train", "name": "tune", "tuning": tuning, "batch_size": 8, "lr": 1e-3, "steps": 2}
    stage |= {"objective": {"terms": [{"kind": "infonce"}]}}
    return Run.model_validate({"name": "r", "base": {"model": "b", "load": "nf4"}, "stages": [stage]})


@pytest.mark.parametrize(
    ("tuning", "machine", "faults"),
    [
        ("lora", Machine(device="cuda"), []),
        (
            "lora",
            Machine(),
            ["base.load: found nf4, which needs device 'cuda', and the machine's is 'cpu'"],
        ),
        (
            "lora",
            Machine(device="cuda", num_processes=2, keep_tokens=0, sharding="full"),
            ["base.load: found nf4, and the machine's sharding is 'full'; 4-bit weights are not shared out"],
        ),
        (
            "full",
            Machine(device="cuda"),
            ["stages.0.tuning: found full, and base.load is 'nf4': 4-bit weights do not train; write lora"],
        ),
    ],
)
def test_where_it_cannot_be(tuning: str, machine: Machine, faults: list[str]) -> None:
    found = fit_faults(run_of(tuning), machine)
    assert [f"{'.'.join(map(str, fault.location))}: {fault.text}" for fault in found] == faults


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_without_the_library() -> None:
    with pytest.raises(UserError) as refused:
        quantise(tiny_encoder("lora"))
    assert str(refused.value) == (
        "base.load is 'nf4', and bitsandbytes is not installed: pip install 'embedtrain[qlora]', or leave "
        "load out"
    )


def test_drift_is_told_by_cosines() -> None:
    found = drift(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert found == {"min_cosine": pytest.approx(0.5**0.5), "mean_cosine": pytest.approx((1 + 0.5**0.5) / 2)}


def quantised() -> Encoder:
    """LoRA on a tiny base in 4 bits."""
    encoder = tiny_encoder("lora", dtype=torch.float32)
    quantise(encoder)
    return encoder.to("cpu")


@NEEDS_LIBRARY
def test_adapters_train_over_4_bits_and_are_saved_for_the_whole_base(tmp_path: Path) -> None:
    whole, encoder = tiny_encoder("lora", dtype=torch.float32), quantised()
    kinds = [type(module).__name__ for module in encoder.modules()]
    assert kinds.count("Linear4bit") == 3 * 7
    rows = [Row(words(i, 4), (words(40 + i, 6),)) for i in range(4)]
    for keep_tokens in (0, 10**6):
        _, gradients = step_gradients(
            encoder, make_batch(encoder, rows), chunk_tokens=16, keep_tokens=keep_tokens
        )
        assert gradients.keys() == {name for name, _ in whole.trainable()}
        assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())
    vectors = encoder.eval().encode(TEXTS)
    save_encoder(encoder, tmp_path / "encoder")
    merged = open_encoder(tmp_path / "encoder").encode(TEXTS)
    np.testing.assert_allclose(merged, whole.encode(TEXTS), atol=1e-6)
    cosines = drift(vectors, merged)
    assert 0.9 < cosines["min_cosine"] < 0.99999


@NEEDS_LIBRARY
def test_folded_adapters_are_refused() -> None:
    encoder = tiny_encoder("lora")
    encoder.folded = True
    with pytest.raises(UserError, match="has other adapters or weights than its base"):
        quantise(encoder)
