"""Tiny models on texts end to end, padded, and one by one: what must be the same."""

import atexit
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from shutil import rmtree

import torch
from tiny_models import DECODERS, ENCODERS, WINDOW, save_tiny
from torch import Tensor

from embedtrain.batch import TokenBatch
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.model.packed import PACKED

CASES = [(family, "bidirectional") for family in DECODERS + ENCODERS] + [(f, "causal") for f in DECODERS]
MIXED = (9, 1, 0, 23, 9, 9, 1, 0, 4 * WINDOW + 1, 2, 17, 1)
Route = Callable[[Encoder, TokenBatch], Tensor]


@cache
def folder_of(family: str) -> Path:
    """A saved tiny model of the family."""
    folder = tempfile.mkdtemp()
    atexit.register(rmtree, folder)
    return save_tiny(family, Path(folder))


def load_tiny(folder: Path, **config: object) -> Encoder:
    return load_encoder(Base(model=str(folder)), EncoderConfig.model_validate(config), TextFormat())


def texts_of(lengths: tuple[int, ...], seed: int = 0, firsts: bool = False) -> TokenBatch:
    """Random texts of these lengths; with `firsts`, an instruction at the start of each is not pooled."""
    generator = torch.Generator().manual_seed(seed)
    batch = TokenBatch.of([torch.randint(4, 399, (n,), generator=generator).tolist() for n in lengths])
    return replace(batch, first_T=batch.lengths_T.clamp(max=5) // 2) if firsts else batch


@contextmanager
def kernel(encoder: Encoder, name: str) -> Iterator[None]:
    """The same weights under another kernel."""
    encoder.backbone.set_attn_implementation(name)
    yield
    encoder.backbone.set_attn_implementation(PACKED)


def packed(encoder: Encoder, batch: TokenBatch) -> Tensor:
    assert encoder.padded is None
    return encoder(batch)


def padded(encoder: Encoder, batch: TokenBatch, name: str) -> Tensor:
    with kernel(encoder, name):
        assert encoder.padded == f"its attention is transformers' own '{name}'"
        return encoder(batch)


def one_by_one(encoder: Encoder, batch: TokenBatch) -> Tensor:
    with kernel(encoder, "sdpa"):
        return torch.cat(
            [encoder(batch.take([])), *(encoder(batch.take([row])) for row in range(len(batch)))]
        )


SDPA: Route = partial(padded, name="sdpa")
EAGER: Route = partial(padded, name="eager")


def vectors_and_gradient(encoder: Encoder, batch: TokenBatch, route: Route) -> tuple[Tensor, Tensor]:
    """Vectors, and the gradient of a random mixture of them at all parameters."""
    encoder.zero_grad()
    vectors = route(encoder, batch)
    assert vectors.shape == (len(batch), encoder.dim)
    weights = torch.randn(vectors.shape, dtype=vectors.dtype, generator=torch.Generator().manual_seed(2))
    if vectors.requires_grad:
        (vectors * weights).sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for _, p in encoder.trainable()]
    return vectors.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def error(found: Tensor, expected: Tensor) -> float:
    """Relative; of two zeros none."""
    assert bool(found.isfinite().all())
    difference, norm = float((found - expected).detach().norm()), float(expected.detach().norm())
    return difference / norm if norm else difference


def assert_same(encoder: Encoder, batch: TokenBatch, routes: tuple[Route, ...], limit: float) -> None:
    """Each route gives the vectors and the gradient of packed texts."""
    vectors, gradient = vectors_and_gradient(encoder, batch, packed)
    assert bool(gradient.any()) == (batch.num_tokens > 0)
    assert not vectors[batch.lengths_T == 0].any()
    for route in routes:
        other_vectors, other_gradient = vectors_and_gradient(encoder, batch, route)
        assert error(vectors, other_vectors) <= limit, route
        assert error(gradient, other_gradient) <= limit, route
