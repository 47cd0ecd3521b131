"""One training step: encode, gather, objective, backward.

The gradient cache: the loss gives the gradient at the vectors, and each chunk carries it into the parameters.
Where a chunk's graph is kept it does so at once; other chunks were encoded without a graph and are encoded
again, with their dropout replayed. Exact either way, and it knows no term. A batch within `keep_tokens` is
encoded once.

Dimensions: T texts (queries, then documents), L tokens, B local queries, A all queries, C candidates, D dims.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, Gathered, TeacherVectors, TokenBatch, join
from embedtrain.dist import gather_fields, gather_vectors, mean_over_processes
from embedtrain.loss.diagnostics import Diagnose
from embedtrain.loss.objective import ObjectiveFunction
from embedtrain.model.encoder import Encoder

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
) -> dict[str, Tensor]:
    """Add this process's gradient of the batch to the parameters; returns its loss and other figures.

    `chunk_tokens` bounds a chunk and `keep_tokens` the graphs that are kept, both in tokens with padding; a
    batch of one chunk is always kept. Averaged over processes, loss and gradient are the global batch's.
    """
    texts = join(batch.queries, batch.documents)
    chunks = encode_chunks(encoder, texts, chunk_tokens, keep_tokens)
    vectors_TD = in_order(encoder, chunks).requires_grad_()
    split = len(batch.queries)
    gathered = (gather or gather_batch)(batch, vectors_TD[:split], vectors_TD[split:])
    learned = dict(encoder.learned.items())
    loss, figures = objective(gathered, mean_over_processes, learned)
    loss.backward()  # type: ignore[no-untyped-call]
    if vectors_TD.grad is None:
        raise ValueError("the loss does not depend on this process's vectors; gather must keep their graph")
    if diagnose is not None:
        with torch.no_grad():
            figures |= diagnose(gathered, learned)
    for chunk in chunks:
        carry_gradient(encoder, chunk, vectors_TD.grad)
    return {"loss": loss.detach(), **figures}


def encode_chunks(encoder: Encoder, texts: TokenBatch, chunk_tokens: int, keep_tokens: int) -> list[Chunk]:
    """The texts in chunks, longest first, encoded; graphs are kept while they fit."""
    padded = encoder.padded is not None
    cut = list(texts.chunks(chunk_tokens, padded=padded))
    chunks = []
    for rows_T, part in cut:
        size = len(part) * int(part.lengths_T[0]) if padded else part.num_tokens
        keep = size <= keep_tokens or len(cut) == 1
        keep_tokens -= size if keep else 0
        state = random_state(encoder.device)
        with torch.set_grad_enabled(keep):
            chunks.append(Chunk(rows_T.to(encoder.device), part, state, encoder(part)))
    return chunks


def in_order(encoder: Encoder, chunks: list[Chunk]) -> Tensor:
    """The chunks' vectors in the batch's order, without their graphs: a leaf that collects the gradient."""
    if not chunks:
        dtype = torch.promote_types(next(encoder.parameters()).dtype, torch.float32)
        return torch.zeros(0, encoder.dim, dtype=dtype, device=encoder.device)
    order_T = torch.cat([chunk.rows_T for chunk in chunks])
    return torch.cat([chunk.vectors_TD.detach() for chunk in chunks])[torch.argsort(order_T)]


def carry_gradient(encoder: Encoder, chunk: Chunk, gradient_TD: Tensor) -> None:
    """Add one chunk's part to the parameters' gradient, and let its graph go."""
    if not chunk.vectors_TD.requires_grad:
        set_random_state(encoder.device, chunk.state)
        chunk.vectors_TD = encoder(chunk.texts)
    chunk.vectors_TD.backward(gradient_TD[chunk.rows_T])  # type: ignore[no-untyped-call]
    chunk.vectors_TD = chunk.vectors_TD.detach()


def gather_batch(batch: ContrastiveBatch, queries_BD: Tensor, documents_CD: Tensor) -> Gathered:
    """Queries and candidates of all processes, both with gradient, and all that is known of them."""
    device, vectors = queries_BD.device, batch.teacher_vectors
    queries_AD, candidates_CD = gather_vectors(queries_BD, documents_CD)
    queries, candidates, scores, teacher = gather_fields(
        {f"{name}_A": on_device(getattr(batch, f"{name}_B"), device) for name in OF_QUERIES},
        {name: getattr(batch, name).to(device) for name in OF_CANDIDATES},
        {name: on_device(scores, device) for name, scores in batch.teacher_scores.items()},
        {n: getattr(vectors, n).to(device) for n in TeacherVectors.__dataclass_fields__} if vectors else {},
    )
    known: dict[str, Any] = queries | candidates
    return Gathered(
        queries_AD=queries_AD,
        candidates_CD=candidates_CD,
        local_B=torch.isin(known["query_index_A"], batch.query_index_B.to(device)).nonzero().flatten(),
        **known,
        teacher_scores=scores,
        teacher_vectors=TeacherVectors(**teacher) if teacher else None,
        source=batch.source,
        draw_seed=batch.draw_seed,
    )


def on_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor there, float64 as exact as the device can hold it."""
    return x.to(device, exact_dtype(device) if x.dtype == torch.float64 else x.dtype)


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
