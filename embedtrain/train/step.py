"""One training step: encode, gather, objective, backward.

The gradient cache: chunks are encoded without a graph, the loss gives the gradient at the vectors, and each
chunk is encoded again, with its dropout replayed, to carry that gradient into the parameters. Exact, and it
knows no term. A batch that fits one chunk takes the plain path.

Dimensions: T texts (queries, then documents), L tokens, B local queries, C candidates, D dims.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from embedtrain.batch import ContrastiveBatch, Gathered, TokenBatch, join
from embedtrain.dist import gather_ints, gather_vectors, mean_over_processes
from embedtrain.loss.objective import ObjectiveFunction
from embedtrain.model.encoder import Encoder

Gather = Callable[[ContrastiveBatch, Tensor, Tensor], Gathered]


def train_step(
    encoder: Encoder,
    batch: ContrastiveBatch,
    objective: ObjectiveFunction,
    *,
    chunk_tokens: int,
    gather: Gather | None = None,
) -> dict[str, Tensor]:
    """Add this process's gradient of the batch to the parameters; returns its loss, as a whole and a term.

    Averaged over processes, once, both are those of the global batch.
    """
    texts = join(batch.queries, batch.documents)
    chunks = list(texts.chunks(chunk_tokens))
    plain = len(chunks) == 1
    vectors_TD, states = _encode(encoder, chunks, plain)
    split = len(batch.queries)
    gathered = (gather or gather_batch)(batch, vectors_TD[:split], vectors_TD[split:])
    loss, terms = objective(gathered, mean_over_processes)
    loss.backward()  # type: ignore[no-untyped-call]
    if not plain:
        _replay(encoder, chunks, states, vectors_TD.grad)
    return {"loss": loss.detach(), **terms}


def gather_batch(batch: ContrastiveBatch, queries_BD: Tensor, documents_CD: Tensor) -> Gathered:
    """Local queries and the candidates of all processes."""
    device = queries_BD.device
    fields = torch.stack([batch.owner_C, batch.is_positive_C.long(), batch.document_key_C], dim=1)
    owner_C, is_positive_C, document_key_C = gather_ints(fields.to(device)).unbind(dim=1)
    return Gathered(
        queries_BD=queries_BD,
        candidates_CD=gather_vectors(documents_CD),
        query_index_B=batch.query_index_B.to(device),
        query_key_B=batch.query_key_B.to(device),
        owner_C=owner_C,
        is_positive_C=is_positive_C.bool(),
        document_key_C=document_key_C,
        source=batch.source,
        draw_seed=batch.draw_seed,
    )


def _encode(
    encoder: Encoder, chunks: list[tuple[Tensor, TokenBatch]], with_graph: bool
) -> tuple[Tensor, list[list[Tensor]]]:
    """Vectors in the batch's order, and the random state before each chunk.

    Without a graph the vectors are a leaf that collects the gradient.
    """
    parameter = next(encoder.parameters())
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    vectors = [torch.zeros(0, encoder.dim, dtype=dtype, device=encoder.device)]
    states = []
    with torch.set_grad_enabled(with_graph):
        for _, chunk in chunks:
            states.append(_random_state(encoder.device))
            vectors.append(encoder(chunk.to(encoder.device)))
    order = torch.cat([torch.zeros(0, dtype=torch.int64), *(rows for rows, _ in chunks)])
    vectors_TD = torch.cat(vectors)[torch.argsort(order).to(encoder.device)]
    return vectors_TD if with_graph else vectors_TD.requires_grad_(), states


def _replay(
    encoder: Encoder,
    chunks: list[tuple[Tensor, TokenBatch]],
    states: list[list[Tensor]],
    gradient_TD: Tensor | None,
) -> None:
    """Encode each chunk again, as the first time, and carry its gradient into the parameters."""
    if gradient_TD is None:
        raise ValueError("the loss does not depend on this process's vectors; gather must keep their graph")
    for (rows, chunk), state in zip(chunks, states, strict=True):
        _set_random_state(encoder.device, state)
        encoder(chunk.to(encoder.device)).backward(gradient_TD[rows.to(encoder.device)])


def _random_state(device: torch.device) -> list[Tensor]:
    """The state of the CPU's generator, and of the accelerator's."""
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state()]


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])
