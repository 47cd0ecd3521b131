"""One training step: encode, gather, objective, backward.

The gradient cache: the loss gives the gradient at the vectors, and each chunk carries it into the parameters.
Where a chunk's graph is kept it does so at once; other chunks were encoded without a graph and are encoded
again, with their dropout replayed. Exact either way, and it knows no term. A batch within `keep_tokens` is
encoded once. Where weights are sharded, all processes go through as many chunks and keep the same of them:
who has fewer adds chunks without a text.

Dimensions: T texts encoded here, B local queries, A all queries, C candidates, D dims.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, Gathered, TeacherVectors, TokenBatch
from embedtrain.dist import agreed, gather_fields, gather_vectors, mean_over_processes
from embedtrain.loss.diagnostics import Diagnose
from embedtrain.loss.objective import ObjectiveFunction
from embedtrain.model.encoder import Encoder
from embedtrain.model.packed import copied
from embedtrain.train.deal import deal_texts

Gather = Callable[[ContrastiveBatch, Tensor, Tensor], Gathered]
OF_QUERIES = ("query_index", "query_key", "label", "graded_score")
OF_CANDIDATES = ("owner_C", "is_positive_C", "document_key_C", "label_C")


@dataclass(slots=True)
class Chunk:
    """Some texts of the batch. `vectors_TD` may have its graph; `state` is the randomness before it."""

    rows_T: Tensor
    texts: TokenBatch
    state: list[Tensor]
    vectors_TD: Tensor


def train_step(
    encoder: Encoder,
    batch: ContrastiveBatch,
    objective: ObjectiveFunction,
    *,
    chunk_tokens: int,
    keep_tokens: int = 0,
    gather: Gather | None = None,
    diagnose: Diagnose | None = None,
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Tensor]:
    """Add this process's gradient of the batch to the parameters; returns its loss and other figures.

    `chunk_tokens` bounds a chunk and `keep_tokens` the graphs that are kept, both with padding where there
    is any; a batch of one chunk is always kept. Averaged over processes, loss and gradient are the global
    batch's. `guard` is around what no other process waits for; where it lets an error pass, the step goes on
    to its end, with vectors that are NaN or a gradient that is not whole.
    """
    dealt = deal_texts(batch.queries, batch.documents)
    chunks: list[Chunk] = []
    with guard():
        chunks = encode_chunks(encoder, dealt.texts, chunk_tokens, keep_tokens)
    kept = sum(chunk.texts.num_tokens for chunk in chunks if chunk.vectors_TD.requires_grad)
    vectors_TD = in_order(encoder, chunks, len(dealt.texts)).requires_grad_()
    gathered = (gather or gather_batch)(batch, *dealt.gather(vectors_TD))
    learned = dict(encoder.learned.items())
    loss, figures = objective(gathered, mean_over_processes, learned)
    loss.backward()  # type: ignore[no-untyped-call]
    if vectors_TD.grad is None:
        raise ValueError("the loss does not depend on this process's vectors; gather must keep their graph")
    if diagnose is not None:
        with torch.no_grad():
            figures |= diagnose(gathered, learned)
    with guard():
        for chunk in chunks:
            carry_gradient(encoder, chunk, vectors_TD.grad)
    return {"loss": loss.detach(), **figures, "kept_tokens": torch.tensor(float(kept))}


def encode_chunks(encoder: Encoder, texts: TokenBatch, chunk_tokens: int, keep_tokens: int) -> list[Chunk]:
    """The texts in chunks, longest first, encoded; graphs are kept while they fit."""
    padded = encoder.padded is not None
    cut = list(texts.chunks(chunk_tokens, padded=padded))
    keeps = fitting([size_of(part, padded) for _, part in cut], keep_tokens)
    if encoder.sharded:
        keeps = agreed(keeps)
        cut += [(torch.empty(0, dtype=torch.int64), TokenBatch.of([]))] * (len(keeps) - len(cut))
    chunks = []
    for (rows_T, part), fits in zip(cut, keeps, strict=True):
        keep = fits or len(cut) == 1
        state = random_state(encoder.device)
        with torch.set_grad_enabled(keep):
            chunks.append(Chunk(copied(rows_T, encoder.device), part, state, encoder(part)))
    return chunks


def fitting(sizes: Sequence[int], keep_tokens: int) -> list[bool]:
    """Which chunks are kept, the first that fit first."""
    keeps = []
    for size in sizes:
        keeps.append(size <= keep_tokens)
        keep_tokens -= size if keeps[-1] else 0
    return keeps


def size_of(part: TokenBatch, padded: bool) -> int:
    """Tokens of a chunk, longest first, counting the padding where there is any."""
    return len(part) * int(part.lengths_T[0]) if padded else part.num_tokens


def in_order(encoder: Encoder, chunks: list[Chunk], num_texts: int) -> Tensor:
    """The chunks' vectors in the batch's order, without their graphs: a leaf that collects the gradient.

    Texts that were not encoded are NaN.
    """
    if not chunks:
        dtype = torch.promote_types(next(encoder.parameters()).dtype, torch.float32)
        return torch.full((num_texts, encoder.dim), torch.nan, dtype=dtype, device=encoder.device)
    order_T = torch.cat([chunk.rows_T for chunk in chunks])
    return torch.cat([chunk.vectors_TD.detach() for chunk in chunks])[torch.argsort(order_T)]


def carry_gradient(encoder: Encoder, chunk: Chunk, gradient_TD: Tensor) -> None:
    """Add one chunk's part to the parameters' gradient, and let its graph go."""
    if not chunk.vectors_TD.requires_grad:
        set_random_state(encoder.device, chunk.state)
        chunk.vectors_TD = encoder(chunk.texts)
    chunk.vectors_TD.backward(gradient_TD[chunk.rows_T])  # type: ignore[no-untyped-call]
    chunk.vectors_TD = chunk.vectors_TD.detach()


def gather_batch(batch: ContrastiveBatch, queries_AD: Tensor, candidates_CD: Tensor) -> Gathered:
    """The vectors of all processes, and what their hosts know of the texts; the local rows are `batch`."""
    device, vectors = queries_AD.device, batch.teacher_vectors
    queries, candidates, scores = gather_fields(
        {f"{name}_A": getattr(batch, f"{name}_B") for name in OF_QUERIES},
        {name: getattr(batch, name) for name in OF_CANDIDATES},
        batch.teacher_scores,
    )
    teacher = [copied(x, device) for x in (vectors.queries_NK, vectors.documents_CK)] if vectors else []
    queries["local_B"] = torch.isin(queries["query_index_A"], batch.query_index_B).nonzero().flatten()
    known: dict[str, Any] = {name: on_device(x, device) for name, x in (queries | candidates).items()}
    return Gathered(
        queries_AD=queries_AD,
        candidates_CD=candidates_CD,
        **known,
        teacher_scores={name: on_device(x, device) for name, x in scores.items()},
        teacher_vectors=TeacherVectors(*gather_vectors(*teacher)) if teacher else None,
        source=batch.source,
        draw_seed=batch.draw_seed,
    )


def on_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor there, float64 as exact as the device can hold it."""
    return copied(x.to(exact_dtype(device)) if x.dtype == torch.float64 else x, device)


def exact_dtype(device: torch.device) -> torch.dtype:
    """float64, which Apple's device has not."""
    return torch.float32 if device.type == "mps" else torch.float64


def random_state(device: torch.device) -> list[Tensor]:
    """The state of the CPU's generator, and of the accelerator's."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state()]


def set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])
