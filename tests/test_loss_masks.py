"""Masks: what they hide, and what they say when their teacher is not there."""

from dataclasses import replace

import pytest
import torch
from contrast_settings import GATHERED, MASK
from hypothesis import given, settings
from loss_reference import random_gathered
from slow_contrast import Slow

from embedtrain.batch import Gathered
from embedtrain.config.denominator import (
    SAME_TEXT,
    AboveFraction,
    AboveMargin,
    Mask,
    SameLabel,
    TeacherRelevant,
)
from embedtrain.config.errors import UserError
from embedtrain.config.terms import InfoNCE
from embedtrain.loss.blocks import (
    Block,
    Pairs,
    blocks,
    document_query,
    pairs,
    positive_cosines,
    query_document,
)
from embedtrain.loss.infonce import infonce
from embedtrain.loss.masks import MASKS, guide, hidden, visible, visible_to_queries

TERM = InfoNCE(kind="infonce")
EVERYTHING = InfoNCE(kind="infonce", query_query=True, document_document=True, document_query=True)


@settings(max_examples=250, deadline=None)
@given(GATHERED, MASK)
def test_every_mask_is_its_definition_in_every_block(raw: Gathered, mask: Mask) -> None:
    g, slow = raw.normalize(), Slow(raw)
    p, teacher = pairs(g), guide(g, [mask])
    for block in blocks(g, p, EVERYTHING):
        left, right = block.name.split("_")
        visible_PX = visible(g, p, block, [mask], teacher)
        hidden_PX = hidden(g, p, block, mask, teacher)
        assert torch.equal(visible_PX, block.allowed_PX & ~hidden_PX)
        for row, (a, c) in enumerate(zip(p.query_P.tolist(), p.positive_P.tolist(), strict=True)):
            place = (left, a if left == "query" else c)
            for x in block.allowed_PX[row].nonzero().flatten().tolist():
                assert bool(hidden_PX[row, x]) == slow.is_hidden(mask, a, c, place, (right, x))


def hand_made() -> tuple[Gathered, Pairs, Block]:
    """A query with its positive at cosine 0.8 and three negatives of its own, at 0.95, 0.85 and 0.7."""
    g = random_gathered(3, num_queries=1, max_positives=1, max_negatives=0, dim=2, local="all")
    cosines = torch.tensor([0.8, 0.95, 0.85, 0.7], dtype=torch.float64)
    g = replace(
        g,
        queries_AD=torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        candidates_CD=torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1),
        query_key_A=torch.tensor([1]),
        label_A=torch.tensor([7]),
        owner_C=g.query_index_A.repeat(4),
        is_positive_C=torch.tensor([True, False, False, False]),
        document_key_C=torch.tensor([2, 3, 1, 2]),
        label_C=torch.tensor([7, 0, 7, 8]),
        teacher_scores={"scores": torch.tensor([9.0, torch.nan, 0.5, 0.4], dtype=torch.float64)},
        teacher_vectors=None,
    ).normalize()
    p = pairs(g)
    return g, p, query_document(g, p, TERM)


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (SAME_TEXT, [1]),
        (SameLabel(kind="same_label"), [1, 3]),
        (AboveMargin(kind="above_margin"), [2, 3]),
        (AboveMargin(kind="above_margin", margin=-0.05), [3]),
        (AboveMargin(kind="above_margin", margin=0.2), [1, 2, 3]),
        (AboveFraction(kind="above_fraction", fraction=1.1), [2, 3]),
        (AboveFraction(kind="above_fraction", fraction=0.85), []),
        (TeacherRelevant(kind="teacher_relevant", threshold=0.5), [1, 3]),
    ],
)
def test_what_is_seen_by_hand(mask: Mask, seen: list[int]) -> None:
    """0.8 x 0.85 = 0.68: below all; the equal threshold 0.85 = 0.8 + 0.05 hides nothing."""
    g, p, block = hand_made()
    assert visible(g, p, block, [mask], None)[0].nonzero().flatten().tolist() == seen


def test_no_label_is_not_a_label() -> None:
    g, p, block = hand_made()
    g = replace(g, label_A=torch.tensor([0]))
    assert not bool(hidden(g, p, block, SameLabel(kind="same_label"), None).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_equal_to_the_bound_stays(dtype: torch.dtype) -> None:
    """A copy of the positive is not above it, though its cosine may be by the last bits."""
    g = random_gathered(4, num_queries=100, max_positives=1, dim=64, local="all", dtype=dtype)
    first = torch.arange(len(g.owner_C)) % 50
    g = replace(g, candidates_CD=g.candidates_CD[first]).normalize()
    p = pairs(g)
    block = query_document(g, p, TERM)
    copy_PC = first[p.positive_P, None] == first
    assert bool((block.scores_PX > positive_cosines(g, p)[:, None])[copy_PC].any())
    assert not bool(hidden(g, p, block, AboveMargin(kind="above_margin", margin=0.0), None)[copy_PC].any())


def test_visible_to_queries_is_what_all_pairs_see() -> None:
    g = random_gathered(2, num_queries=5, local="part").normalize()
    p = pairs(g)
    visible_PX = torch.rand(len(p), 9, generator=torch.Generator().manual_seed(1)) < 0.7
    seen_BX = visible_to_queries(visible_PX, p, len(g.local_B))
    for row, a in enumerate(g.local_B.tolist()):
        assert seen_BX[row].tolist() == visible_PX[p.query_P == a].all(dim=0).tolist()


def test_a_margin_has_no_gradient() -> None:
    g, p, _ = hand_made()
    g = replace(g, queries_AD=g.queries_AD.requires_grad_())
    assert not hidden(g, p, document_query(g, p), AboveMargin(kind="above_margin"), None).requires_grad


def test_a_judge_that_is_not_there_is_named() -> None:
    g = replace(random_gathered(1), teacher_vectors=None)
    mask = AboveFraction(kind="above_fraction", judge="teacher")
    with pytest.raises(UserError) as error:
        infonce(g, TERM.model_copy(update={"masks": (mask,)}), {})
    assert str(error.value) == (
        "source 'faq', mask above_fraction: judge is the teacher, and the batch has no teacher vectors; "
        "give the stage a teacher, or set judge: student"
    )


def test_scores_that_are_not_there_are_named() -> None:
    g = random_gathered(1)
    mask = TeacherRelevant(kind="teacher_relevant", teacher="bge", threshold=0.5)
    with pytest.raises(UserError) as error:
        infonce(g, TERM.model_copy(update={"masks": (mask,)}), {})
    assert str(error.value) == (
        "source 'faq', mask teacher_relevant: no row of the batch has the teacher scores 'bge'; "
        "it has reranker, scores"
    )


def test_every_kind_of_mask_is_in_the_table() -> None:
    kinds = {SAME_TEXT.kind, "same_label", "above_margin", "above_fraction", "teacher_relevant"}
    assert set(MASKS) == kinds
