"""Mixed negatives: parents, draws, and what they do not depend on; their values are tested with InfoNCE."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_reference import random_gathered, with_gradient
from slow_contrast import Slow
from torch import Tensor

from embedtrain.batch import Gathered
from embedtrain.config.denominator import SAME_TEXT, AboveMargin, AnyMixing, ListMixing, PairMixing
from embedtrain.config.terms import InfoNCE
from embedtrain.loss.blocks import pairs, query_document
from embedtrain.loss.infonce import infonce
from embedtrain.loss.masks import visible
from embedtrain.loss.mixing import draw, hardest_parents, mix, own_mixed, own_parents, shared_mixed

PAIR, LIST = PairMixing(kind="pair", count=3), ListMixing(kind="list")
MASKS = (SAME_TEXT, AboveMargin(kind="above_margin", margin=-0.2))


def term(*mixings: AnyMixing, **settings: object) -> InfoNCE:
    return InfoNCE(kind="infonce", temperature=0.1, mixing=mixings, **settings)


def vectors_by_query(g: Gathered, mixing: AnyMixing) -> dict[int, Tensor]:
    """The mixed vectors of each local query, by its global index."""
    g = g.normalize()
    parents = own_parents(g, pairs(g), term(mixing), None)
    mixed_BHD = mix(g, parents, mixing, 0)
    enough = parents.enough_B1.flatten().tolist()
    indices = g.query_index_B.tolist()
    return {i: h for i, h, is_made in zip(indices, mixed_BHD, enough, strict=True) if is_made}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(), MASKS]), st.booleans())
def test_parents_are_what_the_masks_leave(seed: int, masks: tuple, own: bool) -> None:
    raw = random_gathered(seed)
    g, slow, settings_ = raw.normalize(), Slow(raw), term(PAIR, masks=masks, own_negatives=own)
    p = pairs(g)
    parents = own_parents(g, p, settings_, None)
    block = query_document(g, p, settings_)
    hardest = hardest_parents(g, p, block, visible(g, p, block, masks, None), 4)
    for row, a in enumerate(g.local_B.tolist()):
        seen = [c for _, c in slow.visible_documents(settings_, a)]
        count = int(parents.count_B[row])
        assert parents.document_BM[row, :count].tolist() == [c for c in seen if slow.own(a, c)]
        ranked = sorted(seen, key=lambda c, a=a: -slow.cosine(("query", a), ("document", c)))
        assert hardest.document_BM[row, : int(hardest.count_B[row])].tolist() == ranked[:4]


@pytest.mark.parametrize("mixing", [PAIR, LIST])
def test_processes_chunks_and_order_do_not_change_what_is_mixed(mixing: AnyMixing) -> None:
    """The same queries elsewhere among all, and another share of them local."""
    g = random_gathered(12, num_queries=6, local="all")
    order_A = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    fields = ("queries_AD", "query_index_A", "query_key_A", "label_A")
    moved = replace(
        g, local_B=torch.tensor([4, 1, 0]), **{name: getattr(g, name)[order_A] for name in fields}
    )
    here, there = vectors_by_query(g, mixing), vectors_by_query(moved, mixing)
    assert len(there) >= 2
    for index, mixed_HD in there.items():
        torch.testing.assert_close(mixed_HD, here[index])


def test_every_dim_mixes_the_same_parents_in_the_same_shares() -> None:
    g = random_gathered(12, num_queries=6, dim=6, local="all")
    for whole, cut in zip(draw(g, PAIR, 0), draw(g.at_dim(3), PAIR, 0), strict=True):
        assert torch.equal(whole, cut)
    for other in (replace(g, draw_seed=g.draw_seed + 1), g):
        number = 1 if other is g else 0
        assert not torch.equal(draw(g, PAIR, 0)[2], draw(other, PAIR, number)[2])


def test_shares_are_beta_and_parents_are_two_and_all_alike() -> None:
    """10,000 draws: mean and variance of Beta(2, 2), and 12 ordered pairs of 4 parents equally often."""
    g = random_gathered(3, num_queries=10, max_positives=1, local="all")
    mixing = PairMixing(kind="pair", count=1000)
    first, second, share = draw(g, mixing, 0)
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(0.05, abs=0.003)
    j, k = (first * 4).long(), (second * 3).long()
    k += k >= j
    counts = torch.bincount((4 * j + k).flatten(), minlength=16).reshape(4, 4)
    assert counts.diagonal().tolist() == [0] * 4
    assert int((counts + 834 * torch.eye(4, dtype=torch.int64) - 834).abs().max()) < 120
    skewed = PairMixing(kind="pair", count=1000, alpha=8.0, beta=2.0)
    assert float(draw(g, skewed, 0)[2].mean()) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("mixing", [PAIR, LIST])
def test_mixed_vectors_have_length_one_and_lie_between_their_parents(mixing: AnyMixing) -> None:
    g = random_gathered(12, num_queries=6, local="all")
    made = vectors_by_query(g, mixing)
    assert len(made) >= 3
    for mixed_HD in made.values():
        np.testing.assert_allclose(mixed_HD.norm(dim=1).numpy(), 1.0)
    two = random_gathered(1, num_queries=1, max_positives=1, dim=2, local="all")
    angles = torch.tensor([0.0, 0.3, 1.1], dtype=torch.float64)
    two = replace(
        two,
        candidates_CD=torch.stack([angles.cos(), angles.sin()], dim=1),
        owner_C=two.query_index_A.repeat(3),
        is_positive_C=torch.tensor([True, False, False]),
        document_key_C=torch.arange(3) + 50,
        label_C=torch.zeros(3, dtype=torch.int64),
    ).normalize()
    (mixed_HD,) = mix(two, own_parents(two, pairs(two), term(mixing), None), mixing, 0)
    between = torch.atan2(mixed_HD[:, 1], mixed_HD[:, 0])
    assert bool(((between > 0.3) & (between < 1.1)).all())


def test_one_parent_is_none() -> None:
    g = random_gathered(5, num_queries=6, max_negatives=1, local="all").normalize()
    settings_ = term(PAIR, replace_shared(LIST))
    p = pairs(g)
    block = query_document(g, p, settings_)
    _, exists_PH = own_mixed(g, p, settings_, block, block.allowed_PX, None)
    assert exists_PH.shape == (len(p), 3)
    assert not bool(exists_PH.any())
    assert shared_mixed(g, settings_, None).shape == (0, g.dim)


def replace_shared(mixing: AnyMixing) -> AnyMixing:
    return mixing.model_copy(update={"shared": True})


def test_shared_vectors_are_all_queries_whoever_is_local() -> None:
    g = random_gathered(12, num_queries=6, local="all").normalize()
    settings_ = term(replace_shared(PAIR))
    everyones = shared_mixed(g, settings_, None)
    assert len(everyones) == 3 * len(vectors_by_query(g, PAIR)) >= 9
    for start, stop in ((0, 0), (2, 3)):
        assert torch.equal(shared_mixed(g.rows(start, stop), settings_, None), everyones)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mixing", [PAIR, LIST])
def test_detached_mixing_gives_its_parents_no_gradient(mixing: AnyMixing, shared: bool) -> None:
    """The value stays, the gradient changes."""
    g = random_gathered(12, num_queries=6, local="all")
    mixing = mixing.model_copy(update={"shared": shared})
    alone = term(mixing, own_negatives=True, in_batch_positives=False, in_batch_negatives=False)
    values, parents = [], []
    for detach in (False, True):
        leaves = with_gradient(g)
        settings_ = alone.model_copy(update={"mixing": (mixing.model_copy(update={"detach": detach}),)})
        total, _ = infonce(leaves, settings_, {})
        total.backward()
        values.append(total.item())
        assert leaves.candidates_CD.grad is not None
        parents.append(leaves.candidates_CD.grad[~g.is_positive_C])
    assert values[0] == values[1]
    assert not torch.allclose(parents[0], parents[1], rtol=0.01)
    unit = with_gradient(g).normalize()
    for detach in (False, True):
        chosen = mixing.model_copy(update={"detach": detach})
        assert mix(unit, own_parents(unit, pairs(unit), alone, None), chosen, 0).requires_grad != detach
