"""Blocks: cosines of what with what, and what the switches let in."""

import pytest
import torch
from contrast_settings import GATHERED, infonces
from hypothesis import given, settings
from loss_reference import random_gathered
from slow_contrast import Place, Slow

from embedtrain.batch import Gathered
from embedtrain.config.terms import InfoNCE
from embedtrain.loss.blocks import blocks, one_pair, own_documents, pairs, positive_cosines, rank_within

SIDES = {
    "query_document": ("query", "document"),
    "query_query": ("query", "query"),
    "document_document": ("document", "document"),
    "document_query": ("document", "query"),
}
EVERYTHING = InfoNCE(kind="infonce", query_query=True, document_document=True, document_query=True)


@settings(max_examples=150, deadline=None)
@given(GATHERED, infonces())
def test_blocks_are_their_definition(raw: Gathered, term: InfoNCE) -> None:
    """Every cell of every block: its cosine, owner, switch, text and label."""
    g, slow = raw.normalize(), Slow(raw)
    p = pairs(g)
    made = blocks(g, p, term)
    assert [block.name for block in made] == [
        "query_document",
        *(n for n in SIDES if getattr(term, n, False)),
    ]
    expected = [(a, c) for c in range(len(slow.owner)) for a in slow.local() if c in slow.positives(a)]
    assert list(zip(p.query_P.tolist(), p.positive_P.tolist(), strict=True)) == expected
    for block in made:
        left, right = SIDES[block.name]
        columns: list[Place] = [(right, x) for x in range(len(slow.vectors["student"][right]))]
        assert block.scores_PX.shape == block.allowed_PX.shape == block.own_PX.shape == (len(p), len(columns))
        assert block.key_X.tolist() == slow.key[right]
        assert block.label_X.tolist() == slow.label[right]
        for row, (a, c) in enumerate(expected):
            place = ("query", a) if left == "query" else ("document", c)
            cosines = [slow.cosine(place, x) for x in columns]
            assert block.scores_PX[row].tolist() == pytest.approx(cosines, rel=1e-10, abs=1e-10)
            allowed = {
                "query_document": slow.documents(a, term),
                "document_document": slow.other_documents(a),
            }.get(block.name, slow.other_queries(a))
            assert block.allowed_PX[row].tolist() == [x in allowed for x in columns]
            own = [x == a if right == "query" else slow.own(a, x) for _, x in columns]
            assert block.own_PX[row].tolist() == own


@settings(max_examples=50, deadline=None)
@given(GATHERED)
def test_no_block_allows_a_positive_of_the_query(raw: Gathered) -> None:
    g = raw.normalize()
    p = pairs(g)
    for block in blocks(g, p, EVERYTHING):
        if block.document_X is not None:
            assert not bool((block.allowed_PX & block.own_PX & g.is_positive_C).any())


def test_the_cosines_of_a_block_are_those_of_any_vectors() -> None:
    g = random_gathered(3, num_queries=4, local="all").normalize()
    teacher, p = g.as_teacher().normalize(), pairs(g)
    assert teacher.dim != g.dim
    for block, of_teacher in zip(blocks(g, p, EVERYTHING), blocks(teacher, p, EVERYTHING), strict=True):
        assert torch.equal(block.cosines(g), block.scores_PX)
        assert torch.equal(block.cosines(teacher), of_teacher.scores_PX)


def test_own_documents_are_columns_of_the_large_block() -> None:
    g = random_gathered(3, num_queries=4, local="all").normalize()
    p = pairs(g)
    large = blocks(g, p, EVERYTHING)[0]
    document_PM = torch.arange(6).expand(len(p), 6)
    small = own_documents(g, p, document_PM, torch.ones_like(document_PM, dtype=torch.bool))
    torch.testing.assert_close(small.scores_PX, large.scores_PX[:, :6])
    assert torch.equal(small.key_X, large.key_X[document_PM])
    assert torch.equal(small.label_X, large.label_X[document_PM])


def test_small_questions() -> None:
    group_N = torch.tensor([2, 0, 2, 2, 0, 5])
    assert rank_within(group_N, 6).tolist() == [0, 0, 1, 2, 1, 0]
    g = random_gathered(9, num_queries=5, local="part").normalize()
    p = pairs(g)
    assert p.query_P[one_pair(g, p)].tolist() == g.local_B.tolist()
    assert g.local_B[p.row_P].tolist() == p.query_P.tolist()
    expected = blocks(g, p, EVERYTHING)[0].scores_PX[torch.arange(len(p)), p.positive_P]
    torch.testing.assert_close(positive_cosines(g, p), expected)
