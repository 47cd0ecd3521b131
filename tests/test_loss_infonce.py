"""InfoNCE against plain Python loops, and against sentence-transformers."""

import math
from dataclasses import replace

import pytest
import torch
from contrastive import mean_count, tiny_encoder, words
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from embedtrain.batch import Gathered, TokenBatch
from embedtrain.config.objective import InfoNCE, Objective
from embedtrain.loss.infonce import infonce
from embedtrain.loss.masks import same_text
from embedtrain.loss.objective import build_objective
from embedtrain.model.encoder import Encoder
from embedtrain.text import Formatted


def cosine(a: list[float], b: list[float]) -> float:
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm


def slow_infonce(g: Gathered, term: InfoNCE) -> tuple[float, int]:
    """The definition, one pair at a time."""
    queries, candidates = g.queries_BD.tolist(), g.candidates_CD.tolist()
    index, query_key = g.query_index_B.tolist(), g.query_key_B.tolist()
    owner, positive, key = g.owner_C.tolist(), g.is_positive_C.tolist(), g.document_key_C.tolist()
    total, count = 0.0, 0
    for b, query in enumerate(queries):
        scores = [cosine(query, candidate) / term.temperature for candidate in candidates]
        own = [c for c in range(len(candidates)) if owner[c] == index[b] and positive[c]]
        hidden_keys = {query_key[b], *(key[c] for c in own)} if term.mask_same_text else set()
        negatives = []
        for c in range(len(candidates)):
            if owner[c] == index[b]:
                allowed = term.own_negatives and not positive[c]
            else:
                allowed = term.in_batch_positives if positive[c] else term.in_batch_negatives
            if allowed and key[c] not in hidden_keys:
                negatives.append(scores[c])
        if negatives:
            count += 1
        losses = [
            math.log(math.fsum([1.0, *(math.exp(negative - scores[c]) for negative in negatives)]))
            for c in own
        ]
        total += math.fsum(losses) / len(losses)
    return total, count


@st.composite
def batches(draw: st.DrawFn) -> tuple[Gathered, InfoNCE]:
    """Ragged groups, several positives, rows without negatives, equal texts and equal vectors, strange order.

    The local queries are a part of all: the rest belong to other processes.
    """
    num_queries = draw(st.integers(1, 5))
    groups = [(draw(st.integers(1, 3)), draw(st.integers(0, 3))) for _ in range(num_queries)]
    owners = [i for i, (positives, negatives) in enumerate(groups) for _ in range(positives + negatives)]
    is_positive = [j < p for p, n in groups for j in range(p + n)]
    order = draw(st.permutations(range(len(owners))))
    key = st.integers(0, 6)  # few, so that many are equal
    coordinate = st.integers(-2, 2).map(float)  # few, so that many scores tie
    dim = draw(st.integers(1, 4))
    vector = st.lists(coordinate, min_size=dim, max_size=dim).filter(any)
    local = sorted(draw(st.sets(st.integers(0, num_queries - 1), min_size=1)))
    gathered = Gathered(
        queries_BD=torch.tensor([draw(vector) for _ in local], dtype=torch.float64),
        candidates_CD=torch.tensor([draw(vector) for _ in owners], dtype=torch.float64),
        query_index_B=torch.tensor(local),
        query_key_B=torch.tensor([draw(key) for _ in local]),
        owner_C=torch.tensor([owners[i] for i in order]),
        is_positive_C=torch.tensor([is_positive[i] for i in order]),
        document_key_C=torch.tensor([draw(key) for _ in owners]),
        source="faq",
        draw_seed=1,
    )
    switches = {
        name: draw(st.booleans())
        for name in ("in_batch_positives", "own_negatives", "in_batch_negatives", "mask_same_text")
    }
    return gathered, InfoNCE(kind="infonce", temperature=draw(st.sampled_from([0.02, 0.1, 1.0])), **switches)


@settings(max_examples=300, deadline=None)
@given(batches())
def test_infonce_is_its_definition(case: tuple[Gathered, InfoNCE]) -> None:
    gathered, term = case
    total, count = infonce(gathered, term)
    slow_total, slow_count = slow_infonce(gathered, term)
    assert total.dtype == torch.float64
    assert float(total) == pytest.approx(slow_total, rel=1e-10, abs=1e-10)
    assert int(count) == slow_count


@settings(max_examples=100, deadline=None)
@given(batches())
def test_gradient_is_finite_and_a_mask_never_hides_an_own_positive(case: tuple[Gathered, InfoNCE]) -> None:
    gathered, term = case
    leaves = [v.clone().requires_grad_() for v in (gathered.queries_BD, gathered.candidates_CD)]
    infonce(replace(gathered, queries_BD=leaves[0], candidates_CD=leaves[1]), term)[0].backward()
    assert all(leaf.grad is not None and bool(leaf.grad.isfinite().all()) for leaf in leaves)
    own_BC = (gathered.query_index_B[:, None] == gathered.owner_C) & gathered.is_positive_C
    assert not bool((same_text(gathered) & own_BC).any())


def gathered_of(queries: Tensor, groups: list[Tensor]) -> Gathered:
    """Column-wise groups, sentence-transformers' layout: the positives of all rows, then their negatives."""
    size = len(queries)
    return Gathered(
        queries_BD=queries,
        candidates_CD=torch.cat(groups),
        query_index_B=torch.arange(size),
        query_key_B=torch.arange(size),
        owner_C=torch.arange(size).repeat(len(groups)),
        is_positive_C=torch.arange(size * len(groups)) < size,
        document_key_C=torch.arange(size * len(groups)) + size,
        source="faq",
        draw_seed=1,
    )


class Wrapped(nn.Module):
    """Our encoder as the model that sentence-transformers' losses call."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = TokenBatch(features["ids"], features["mask"], features["pool"])
        return {"sentence_embedding": self.encoder(batch)}


@pytest.mark.parametrize("num_columns", [1, 3])
def test_infonce_is_multiple_negatives_ranking_loss(num_columns: int) -> None:
    """Value and gradient, float32, on the same texts and model; each row has `num_columns - 1` negatives."""
    encoder = tiny_encoder("lora", dtype=torch.float32)
    columns = [[words(10 * c + i, 3 + i) for i in range(6)] for c in range(4)]
    tokens = [
        encoder.tokenize([Formatted(t, 0) for t in column], 64) for column in columns[: num_columns + 1]
    ]
    theirs = MultipleNegativesRankingLoss(wrap(encoder), scale=20.0)
    features = [{"ids": t.ids_TL, "mask": t.mask_TL, "pool": t.pool_TL} for t in tokens]
    expected = theirs(features, torch.empty(0))
    expected.backward()
    their_gradient = {name: p.grad.clone() for name, p in encoder.trainable() if p.grad is not None}

    encoder.zero_grad()
    queries, *groups = (encoder(t) for t in tokens)
    objective = build_objective(Objective(terms=(InfoNCE(kind="infonce", temperature=0.05),)))
    loss, _ = objective(gathered_of(queries, groups), mean_count)
    loss.backward()
    assert expected.item() > 1
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    ours = torch.cat([p.grad.flatten() for _, p in encoder.trainable() if p.grad is not None])
    their = torch.cat([gradient.flatten() for gradient in their_gradient.values()])
    assert float((ours - their).norm() / their.norm()) < 1e-5


def wrap(encoder: Encoder) -> SentenceTransformer:
    return SentenceTransformer(modules=[Wrapped(encoder)], device="cpu")
