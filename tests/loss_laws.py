"""What holds for every term on any batch, and our encoder as sentence-transformers' losses call it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from contrastive import words
from loss_reference import with_gradient
from sentence_transformers import SentenceTransformer
from token_ids import ids_of
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from embedtrain.batch import Gathered, TokenBatch
from embedtrain.model.encoder import Encoder
from embedtrain.text import Formatted

Term = Callable[[Gathered, Any, Mapping[str, Tensor]], tuple[Tensor, Tensor]]
Result = tuple[float, int, Tensor]


def evaluate(term: Term, g: Gathered, settings: Any, learned: Mapping[str, Tensor] | None = None) -> Result:
    """Sum, count, and the gradient of the sum at all vectors; the sum must depend on both kinds."""
    g = with_gradient(g)
    total, count = term(g, settings, learned or {})
    assert total.shape == count.shape == ()
    assert not count.requires_grad
    assert total.dtype == torch.promote_types(g.queries_AD.dtype, torch.float32)
    gradients = torch.autograd.grad(total, [g.queries_AD, g.candidates_CD])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    return total.item(), int(count), torch.cat([gradient.flatten() for gradient in gradients])


def assert_parts_add_up(
    term: Term, g: Gathered, settings: Any, learned: Mapping[str, Tensor] | None = None
) -> None:
    """Sums, counts and gradients over parts of the local queries, one of them empty, add up to the whole."""
    size = len(g.local_B)
    cuts = [0, 0, size // 3, size]
    parts = [evaluate(term, g.rows(i, j), settings, learned) for i, j in pairwise(cuts)]
    total, count, gradient = evaluate(term, g, settings, learned)
    assert parts[0][:2] == (0, 0)
    assert sum(part[1] for part in parts) == count
    assert sum(part[0] for part in parts) == pytest.approx(total, rel=1e-12, abs=1e-12)
    torch.testing.assert_close(sum(part[2] for part in parts), gradient, rtol=1e-10, atol=1e-12)


def assert_whole_everywhere(term: Term, g: Gathered, settings: Any) -> None:
    """A term of the whole batch is the same on every process, one without a local query too."""
    total, count, gradient = evaluate(term, g, settings)
    for start, stop in ((0, 0), (0, 1)):
        part = evaluate(term, g.rows(start, stop), settings)
        assert part[:2] == (total, count)
        assert torch.equal(part[2], gradient)


def assert_order_is_free(
    term: Term, g: Gathered, settings: Any, learned: Mapping[str, Tensor] | None = None
) -> None:
    """The candidates' order changes nothing."""
    order_C = torch.randperm(len(g.owner_C), generator=torch.Generator().manual_seed(3))
    teacher = g.teacher_vectors
    moved = replace(
        g,
        **{
            name: getattr(g, name)[order_C]
            for name in ("candidates_CD", "owner_C", "is_positive_C", "document_key_C", "label_C")
        },
        teacher_scores={name: scores_C[order_C] for name, scores_C in g.teacher_scores.items()},
        teacher_vectors=teacher and replace(teacher, documents_CK=teacher.documents_CK[order_C]),
    )
    total, count, _ = evaluate(term, g, settings, learned)
    moved_total, moved_count, _ = evaluate(term, moved, settings, learned)
    assert (moved_total, moved_count) == (pytest.approx(total, rel=1e-12, abs=1e-12), count)


def assert_gradient(
    term: Term, g: Gathered, settings: Any, learned: Mapping[str, Tensor] | None = None
) -> None:
    """The gradient is that of finite differences, at the learned numbers too."""
    names = sorted(learned or {})

    def total(queries_AD: Tensor, candidates_CD: Tensor, *numbers: Tensor) -> Tensor:
        moved = replace(g, queries_AD=queries_AD, candidates_CD=candidates_CD)
        return term(moved, settings, dict(zip(names, numbers, strict=True)))[0]

    leaves = [g.queries_AD, g.candidates_CD, *(learned[name] for name in names)] if learned else None
    inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves or (g.queries_AD, g.candidates_CD)]
    assert torch.autograd.gradcheck(total, inputs)


def assert_low_precision_is_summed_in_float32(
    term: Term, g: Gathered, settings: Any, learned: Mapping[str, Tensor] | None = None
) -> None:
    """bfloat16 vectors give what the same numbers in float32 give."""
    low = replace(g, queries_AD=g.queries_AD.bfloat16(), candidates_CD=g.candidates_CD.bfloat16())
    up = replace(low, queries_AD=low.queries_AD.float(), candidates_CD=low.candidates_CD.float())
    assert evaluate(term, low, settings, learned)[:2] == evaluate(term, up, settings, learned)[:2]


# --- sentence-transformers' losses on our encoder -----------------------------------------------------------


class Wrapped(nn.Module):
    """Our encoder as the model that sentence-transformers' losses call."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = zip(features["ids"].tolist(), features["lengths"].tolist(), strict=True)
        return {"sentence_embedding": self.encoder(TokenBatch.of([ids[:length] for ids, length in rows]))}

    def get_embedding_dimension(self) -> int:
        return self.encoder.dim


def wrap(encoder: Encoder) -> SentenceTransformer:
    """The encoder within a SentenceTransformer; its losses get `features` of token columns."""
    return SentenceTransformer(modules=[Wrapped(encoder)], device="cpu")


def token_columns(encoder: Encoder, num_columns: int, num_rows: int = 6) -> list[TokenBatch]:
    """Columns of texts: queries, positives, then hard negatives."""
    columns = [[words(10 * c + i, 3 + i) for i in range(num_rows)] for c in range(num_columns)]
    return [encoder.tokenize([Formatted(text, 0) for text in column], 64) for column in columns]


def features(columns: Sequence[TokenBatch]) -> list[dict[str, Tensor]]:
    """The columns as sentence-transformers' losses take them."""
    texts = [[torch.tensor(ids) for ids in ids_of(column)] for column in columns]
    return [
        {"ids": pad_sequence(column, batch_first=True), "lengths": torch.tensor([len(ids) for ids in column])}
        for column in texts
    ]


def gathered_columns(encoder: Encoder, columns: Sequence[TokenBatch], **fields: Any) -> Gathered:
    """The columns encoded: all positives first, then all first negatives, and so on; `fields` win."""
    queries_AD, *documents = (encoder(column) for column in columns)
    size, count = len(queries_AD), len(queries_AD) * len(documents)
    known: dict[str, Any] = {
        "queries_AD": queries_AD,
        "candidates_CD": torch.cat(documents),
        "local_B": torch.arange(size),
        "query_index_A": torch.arange(size),
        "query_key_A": torch.arange(size),
        "label_A": torch.zeros(size, dtype=torch.int64),
        "graded_score_A": torch.full((size,), torch.nan, dtype=torch.float64),
        "owner_C": torch.arange(size).repeat(len(documents)),
        "is_positive_C": torch.arange(count) < size,
        "document_key_C": torch.arange(count) + size,
        "label_C": torch.zeros(count, dtype=torch.int64),
        "teacher_scores": {},
        "teacher_vectors": None,
        "source": "faq",
        "draw_seed": 1,
    }
    return Gathered(**(known | fields))


def assert_parity(encoder: Encoder, ours: Tensor, theirs: Tensor) -> None:
    """Values to 1e-6 relative, the parameters' gradients to 1e-5, in float32."""
    gradients = []
    for loss in (ours, theirs):
        encoder.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for _, p in encoder.trainable() if p.grad is not None]))
    assert theirs.item() > 1e-3
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5
