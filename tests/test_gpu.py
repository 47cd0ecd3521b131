"""What only a GPU can show; `python tools/gpu_check.py` runs these. Each also says what it rests on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import OBJECTIVE, Tuning, make_batch, make_trainable, words
from packing import texts_of
from tiny_models import DECODERS, TEXTS, save_tiny

from embedtrain.batch import TokenBatch
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.data.rows import Row
from embedtrain.loss.objective import build_objective
from embedtrain.model import packed
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.model.load import load_encoder
from embedtrain.model.varlen import Kernel, why_none
from embedtrain.search import search
from embedtrain.train.step import train_step

pytestmark = pytest.mark.gpu
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
NUM_CHUNKS = 128
PACKED_CASES = [
    ("modernbert", "bidirectional"),
    *((family, way) for family in ("llama", "qwen3", "gemma3_text") for way in ("bidirectional", "causal")),
]


@pytest.fixture
def device() -> Iterator[str]:
    """The GPU, with float32 products in float32."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield "cuda"
    torch.set_float32_matmul_precision(before)


def load(folder: Path, device: str, precision: str = "float32", **config: str) -> Encoder:
    """The encoder of a folder; loading proves its attention on the device."""
    settings = EncoderConfig.model_validate(config)
    return load_encoder(Base(model=str(folder)), settings, TextFormat(), precision=precision, device=device)


def adapt(encoder: Encoder, dropout: float = 0.0) -> Encoder:
    """Adapters with a B that is random and not zero, in training."""
    make_trainable(encoder, "lora", dropout)
    return encoder.train()


def gradient(encoder: Encoder, rows: list[Row], chunk_tokens: int) -> np.ndarray:
    """All gradients of one step, end to end, in float64."""
    encoder.zero_grad()
    torch.manual_seed(13)
    train_step(encoder, make_batch(encoder, rows), build_objective(OBJECTIVE), chunk_tokens=chunk_tokens)
    parts = [p.grad.double().cpu().numpy().ravel() for _, p in encoder.trainable() if p.grad is not None]
    assert len(parts) == len(encoder.trainable())
    assert all(part.any() for part in parts), "a parameter without gradient proves nothing"
    return np.concatenate(parts)


def pairs(count: int) -> list[Row]:
    """`count` rows of one positive, 4 to 12 words a text."""
    return [Row(words(i, 4 + i % 5), (words(1000 + i, 6 + i % 7),)) for i in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", ["packed", "sdpa", "eager"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_attention_is_proven_on_the_gpu(
    tmp_path: Path, device: str, family: str, kernel: str, attention: str
) -> None:
    folder = save_tiny(family, tmp_path)
    encoder = load(folder, device, "bfloat16", attention=attention, attention_kernel=kernel)
    assert encoder.device.type == device
    vectors = encoder.encode(TEXTS)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_equal_those_of_the_cpu(tmp_path: Path, device: str, family: str) -> None:
    folder = save_tiny(family, tmp_path)
    there, here = (load(folder, where).encode(TEXTS) for where in (device, "cpu"))
    np.testing.assert_allclose(there, here, atol=1e-5)


def wide(family: str) -> dict[str, object]:
    """Heads of 64 dims, and windows as in `tiny_models`."""
    sizes: dict[str, object] = {"hidden_size": 128, "num_attention_heads": 2, "initializer_range": 0.05}
    if family in DECODERS:
        sizes |= {"head_dim": 64, "num_key_value_heads": 1}
    return sizes | ({"query_pre_attn_scalar": 64} if family == "gemma3_text" else {})


def flat_gradient(encoder: Encoder, batch: TokenBatch) -> tuple[np.ndarray, np.ndarray]:
    """Vectors, and the gradient of a fixed mixture of them, in float64."""
    encoder.zero_grad()
    vectors = encoder(batch)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2)).to(vectors)
    (vectors * weights).sum().backward()
    parts = [p.grad.double().cpu().numpy().ravel() for _, p in encoder.trainable() if p.grad is not None]
    return vectors.detach().double().cpu().numpy(), np.concatenate(parts)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize(("family", "attention"), PACKED_CASES)
def test_packed_equals_padded_in_bfloat16(
    tmp_path: Path,
    device: str,
    family: str,
    attention: str,
    tuning: Tuning,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the kernel, in every layer; each as far from float32 as bfloat16 is."""
    folder = save_tiny(family, tmp_path, **wide(family))
    dtypes: list[torch.dtype] = []
    found_kernel = packed.varlen_kernel

    def watched(where: str, dtype: torch.dtype, head_dim: int, dropout: float) -> Kernel | None:
        dtypes.append(dtype)
        kernel = found_kernel(where, dtype, head_dim, dropout)
        assert kernel is not None, (dtype, why_none(where, dtype, head_dim, dropout))
        assert head_dim == 64
        return kernel

    batch = texts_of((40, 1, 0, 23, 40, 9, 1, 100, 17))
    results = []
    for precision, kernel in (("bfloat16", "packed"), ("bfloat16", "sdpa"), ("float32", "eager")):
        encoder = load(folder, device, precision, attention=attention, attention_kernel=kernel)
        assert (encoder.padded is None) == (kernel == "packed"), encoder.padded
        make_trainable(encoder, tuning)
        if kernel == "packed":
            monkeypatch.setattr(packed, "varlen_kernel", watched)
        results.append(flat_gradient(encoder.train(), batch))
    assert dtypes == [torch.bfloat16] * len(layers_of(encoder.backbone))
    (ours, our_gradient), (theirs, their_gradient), (exact, exact_gradient) = results
    bound = 2 * np.linalg.norm(theirs - exact) + 1e-3 * np.linalg.norm(exact)
    assert np.linalg.norm(ours - exact) <= bound
    for one, other in ((our_gradient, their_gradient), (our_gradient, exact_gradient)):
        assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999


def test_packed_equals_one_by_one_in_float32(tmp_path: Path, device: str) -> None:
    """Where no kernel takes the precision, texts are padded, and that is said."""
    encoder = load(save_tiny("llama", tmp_path), device)
    assert encoder.padded == "the kernels take bfloat16 or float16, not float32"
    batch = texts_of((9, 1, 0, 23, 9))
    with torch.no_grad():
        alone = torch.cat([encoder(batch.take([row])) for row in range(len(batch))])
        np.testing.assert_allclose(encoder(batch).cpu(), alone.cpu(), atol=1e-5)


def test_cached_equals_direct_with_dropout_on(tmp_path: Path, device: str) -> None:
    encoder = adapt(load(save_tiny("llama", tmp_path), device), dropout=0.3)
    rows = pairs(12)
    dry = gradient(encoder.eval(), rows, 64)
    cached, again = (gradient(encoder.train(), rows, 64) for _ in range(2))
    direct = gradient(adapt(load(tmp_path, device)).eval(), rows, 10**6)
    assert np.linalg.norm(cached - dry) > 0.01 * np.linalg.norm(dry), "dropout does nothing"
    assert np.linalg.norm(cached - again) <= 1e-5 * np.linalg.norm(cached), "dropout is not replayed"
    assert np.linalg.norm(dry - direct) <= 1e-5 * np.linalg.norm(direct)


def test_many_chunks_in_bfloat16_keep_the_gradient(tmp_path: Path, device: str) -> None:
    folder, rows = save_tiny("llama", tmp_path, initializer_range=0.05), pairs(NUM_CHUNKS // 2)
    half = load(folder, device, "bfloat16")
    whole = load(folder, device)
    whole.load_state_dict(half.state_dict())  # the same rounded weights, so only the arithmetic differs
    adapt(half)
    adapt(whole)
    assert {p.dtype for _, p in half.trainable()} == {torch.float32}
    assert half.backbone.get_input_embeddings().weight.dtype == torch.bfloat16
    found, expected = gradient(half, rows, 1), gradient(whole, rows, 10**6)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine >= 0.9999


def test_search_on_the_gpu_equals_that_on_the_cpu(device: str) -> None:
    """float16 candidates, float64 scores: the same bytes; near ties go through float32 and the scan."""
    rng = np.random.default_rng(0)
    queries, documents = (rng.standard_normal((num, 256), dtype=np.float32) for num in (300, 20_000))
    close = documents[:1] + 1e-4 * documents
    for corpus in (documents, close, documents.astype(np.float16)):
        there, here = (search(queries, corpus, 50, device=where) for where in (device, "cpu"))
        np.testing.assert_array_equal(there[0], here[0])
        np.testing.assert_array_equal(there[1], here[1])
