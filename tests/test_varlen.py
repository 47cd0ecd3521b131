"""Kernels for texts end to end: windows, why there is none, and the calls, by a slow kernel on the CPU."""

import inspect
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from contrastive import make_trainable
from packing import CASES, MIXED, error, folder_of, load_tiny, packed, texts_of, vectors_and_gradient
from slow_varlen import KERNELS, slow_flash
from tiny_models import DECODERS, ENCODERS
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model import packed as packing
from embedtrain.model import varlen
from embedtrain.model.layout import layers_of
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import tune_all
from embedtrain.model.packed import Spans, attend, by_length, groups_of, why_padded
from embedtrain.model.varlen import (
    Window,
    find_kernel,
    varlen_kernel,
    why_none,
)

WINDOWS = [Window(causal, reach) for causal in (False, True) for reach in (None, 0, 1, 3, 100)]
FITTING = ("cuda", torch.bfloat16, 64, 0.0)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found of this machine's kernels is asked anew, before and after."""
    for remembering in (why_none, find_kernel):
        remembering.cache_clear()
    yield
    for remembering in (why_none, find_kernel):
        remembering.cache_clear()


# --- windows ----------------------------------------------------------------------------------------------


def sees(window: Window, row: int, column: int) -> bool:
    """Whether one token sees another."""
    if window.causal and column > row:
        return False
    return window.reach is None or abs(row - column) <= window.reach


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_mask_is_the_double_loop(window: Window, length: int) -> None:
    found = window.mask(length, torch.device("cpu"))
    assert found.dtype == torch.bool
    places = range(length)
    assert found.tolist() == [[sees(window, row, column) for column in places] for row in places]


def test_sides() -> None:
    assert Window(causal=False).sides == (-1, -1)
    assert Window(causal=True).sides == (-1, 0)
    assert Window(causal=False, reach=3).sides == (3, 3)
    assert Window(causal=True, reach=3).sides == (3, 0)
    assert Window(causal=False, reach=0).sides == (0, 0)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_sides_say_what_the_mask_says(window: Window) -> None:
    left, right = window.sides
    places = torch.arange(9)
    distance = places[:, None] - places
    seen = ((left < 0) | (distance <= left)) & ((right < 0) | (-distance <= right))
    assert torch.equal(seen, window.mask(9, torch.device("cpu")))


# --- why there is no kernel -------------------------------------------------------------------------------


def on_a_gpu(patch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    patch.setattr(torch.cuda, "get_device_capability", lambda *device: capability)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({0: "cpu"}, "the kernels are for GPUs, and the device is cpu"),
        ({0: "mps"}, "the kernels are for GPUs, and the device is mps"),
        ({1: torch.float32}, "the kernels take bfloat16 or float16, not float32"),
        ({1: torch.float64}, "the kernels take bfloat16 or float16, not float64"),
        ({3: 0.1}, "the kernels have no attention dropout"),
        ({2: 264}, "the kernels take heads of up to 256 dims, a multiple of 8, not 264"),
        ({2: 20}, "the kernels take heads of up to 256 dims, a multiple of 8, not 20"),
    ],
)
def test_why_there_is_no_kernel(changed: dict[int, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    asked = [changed.get(place, value) for place, value in enumerate(FITTING)]
    assert why_none(*asked) == said
    assert varlen_kernel(*asked) is None


def test_an_old_gpu_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, (7, 5))
    assert why_none(*FITTING) == "the kernels need a GPU of compute capability 8.0 or newer"


def test_what_fits_gets_the_best_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, (8, 0))
    for dtype in (torch.bfloat16, torch.float16):
        assert why_none("cuda", dtype, 256, 0.0) is None
        assert varlen_kernel("cuda", dtype, 256, 0.0) is find_kernel()[1] is not None


def test_without_a_package_torch_has_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "PACKAGES", {})
    assert find_kernel()[0] == f"torch {torch.__version__} varlen_attn"


def test_torch_takes_windows_and_a_scale() -> None:
    """As `torch_varlen` calls it, and as `find_kernel` asks for it."""
    accepted = inspect.signature(varlen_attn)
    assert {"window_size", "scale"} <= set(accepted.parameters)
    options = {"scale": 0.5, "window_size": (-1, 0)}
    if "enable_gqa" in accepted.parameters:
        options["enable_gqa"] = True
    bound = accepted.bind("q", "k", "v", "starts", "starts", 7, 7, **options).arguments
    assert list(bound)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


@pytest.mark.parametrize("lacking", ["the module", "windows"])
def test_a_torch_without_windows_says_so(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    monkeypatch.setattr(varlen, "PACKAGES", {})
    module: Any = None
    if lacking == "windows":
        module = ModuleType("torch.nn.attention.varlen")
        module.varlen_attn = lambda query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal: None
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    assert find_kernel() == ("none", None)
    assert why_none(*FITTING) == (
        f"torch {torch.__version__} has no varlen_attn with windows, and flash-attn is not installed"
    )


def test_the_newest_package_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be imported is passed over, whatever it dies of."""

    def find(name: str) -> ModuleType:
        if name == "flash_attn.cute.interface":
            raise OSError("libcudart.so: cannot open shared object file")
        if name == "flash_attn_interface":
            return ModuleType(name)  # without the function
        return SimpleNamespace(flash_attn_varlen_func=slow_flash)  # type: ignore[return-value]

    monkeypatch.setattr(varlen, "import_module", find)
    assert find_kernel()[0] == "flash-attn 2"


def test_why_a_model_is_padded_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own head and dropout are asked about: dropout in training alone."""
    on_a_gpu(monkeypatch)
    backbone = load_tiny(folder_of("bert")).backbone
    backbone.config.attention_probs_dropout_prob = 0.1
    asked = partial(why_padded, backbone, torch.bfloat16, "cuda")
    assert (asked(False), asked(True)) == (None, "the kernels have no attention dropout")
    assert why_padded(backbone, torch.float32, "cuda", False) == why_none("cuda", torch.float32, 8, 0.0)
    assert why_padded(backbone, torch.float32, "cpu", True) is None
    decoder = load_tiny(folder_of("qwen3")).backbone
    assert decoder.config.head_dim != decoder.config.hidden_size // 2
    decoder.config.head_dim = 12
    assert why_padded(decoder, torch.bfloat16, "cuda", True) == why_none("cuda", torch.bfloat16, 12, 0.0)


@pytest.mark.parametrize(
    "family",
    [*ENCODERS, *DECODERS],
)
def test_mixed_precision_reaches_attention_in_bfloat16(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 products over float32 weights: `Encoder.padded` promises a kernel, so one must fit."""
    asked: list[torch.dtype] = []
    monkeypatch.setattr(packing, "varlen_kernel", lambda device, dtype, *rest: asked.append(dtype))
    base = Base(model=str(folder_of(family)))
    encoder = load_encoder(base, EncoderConfig(), TextFormat(), precision="bfloat16")
    tune_all(encoder)
    asked.clear()
    encoder(texts_of(MIXED))
    assert set(asked) == {torch.bfloat16}


# --- the calls, by a slow kernel --------------------------------------------------------------------------


LENGTHS = (4, 1, 0, 7, 7, 2)


def heads_of(num_heads: int, seed: int, lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    """Random (1, H, P, E), laid out as a backbone's projections are."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(1, sum(lengths), num_heads, 8, dtype=torch.float64, generator=generator)
    return flat.requires_grad_().transpose(1, 2)


def spans_of(lengths: tuple[int, ...] = LENGTHS) -> Spans:
    batch = texts_of(lengths)
    starts = nn.functional.pad(batch.lengths_T.cumsum(0), (1, 0)).to(torch.int32)
    return Spans(starts, groups_of(batch), max(lengths))


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize("name", KERNELS)
def test_attention_by_a_kernel_is_that_by_length(
    name: str, num_heads: int, window: Window, scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients, to 1e-12."""
    q, k, v = heads_of(4, 1), heads_of(num_heads, 2), heads_of(num_heads, 3)
    module = nn.Module()
    module.is_causal = not window.causal  # the call's word counts, not the module's
    monkeypatch.setattr(packing, "varlen_kernel", lambda *asked: KERNELS[name])
    options = {"scaling": scale, "is_causal": window.causal, "spans": spans_of()}
    if window.reach is not None:
        options["sliding_window"] = window.reach + 1
    found, none = attend(module, q, k, v, None, **options)
    assert none is None
    expected = by_length(q, k, v, spans_of(), window, scaling=scale)
    assert found.shape == expected.shape == (1, sum(LENGTHS), 4, 8)
    assert error(found, expected) < 1e-12
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(4))
    gradients = [torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (found, expected)]
    one, other = (torch.cat([gradient.flatten() for gradient in three]) for three in gradients)
    assert error(one, other) < 1e-12


def test_the_kernel_is_asked_for_by_what_comes_to_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(packing, "varlen_kernel", lambda *values: asked.append(values))
    module = nn.Module()
    module.is_causal = True
    heads = heads_of(4, 1), heads_of(2, 2), heads_of(2, 3)
    found, _ = attend(module, *heads, None, dropout=0.25, spans=spans_of())
    assert asked == [("cpu", torch.float64, 8, 0.25)]
    assert found.shape == (1, sum(LENGTHS), 4, 8)


@pytest.mark.parametrize("name", ["torch", "flash-attn 4"])
@pytest.mark.parametrize(("family", "attention"), CASES)
def test_a_whole_encoder_by_a_kernel(
    family: str, attention: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors and gradients; the window of Mistral, Gemma 3 and ModernBERT reaches the kernel."""
    encoder = load_tiny(folder_of(family), attention=attention)
    make_trainable(encoder, "lora")
    batch = texts_of((9, 0, 1, 21, 9), firsts=True)
    vectors, gradient = vectors_and_gradient(encoder, batch, packed)
    windows: list[Window] = []

    def kernel(*arguments: Any) -> Tensor:
        windows.append(arguments[5])
        return KERNELS[name](*arguments)

    monkeypatch.setattr(packing, "varlen_kernel", lambda *asked: kernel)
    found, found_gradient = vectors_and_gradient(encoder, batch, packed)
    assert len(windows) == len(layers_of(encoder.backbone))
    assert {window.causal for window in windows} == {attention == "causal"}
    narrow = {"bidirectional": ["modernbert"], "causal": ["mistral", "qwen2", "gemma3_text"]}
    assert any(window.reach is not None for window in windows) == (family in narrow[attention])
    assert error(found, vectors) < 1e-5
    assert error(found_gradient, gradient) < 1e-5


def test_the_mixed_batch_by_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts in any order, some empty, the longest beyond every window."""
    encoder = load_tiny(folder_of("modernbert"))
    expected = encoder(texts_of(MIXED))
    monkeypatch.setattr(packing, "varlen_kernel", lambda *asked: KERNELS["torch"])
    assert error(encoder(texts_of(MIXED)), expected) < 1e-5
