"""Batches of several sources, and in-context examples in them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_models import tiny_tokenizer
from token_ids import ids_of

from embedtrain.batch import ContrastiveBatch, TokenBatch, join_batches
from embedtrain.collate import Collation, collate, collate_parts, hash_seed
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import FewShot, Source
from embedtrain.data.rows import Row, text_key
from embedtrain.mixture import PlannedBatch
from embedtrain.text import source_text
from embedtrain.train.feed import feed

FORMAT = TextFormat(query="{instruction}: {text}", document="{text}", max_query_tokens=20)
FAQ = [Row(f"how {i}", (f"so {i}",), (f"not {i}", f"nor {i}"), label=f"kind {i % 2}") for i in range(9)]
PAIRS = [Row(f"one {i}", (f"other {i}", f"same {i}"), score=float(i)) for i in range(7)]
WORDS = Source.model_validate(
    {
        "rows": "words.parquet",
        "instruction": "Sort",
        "query": "{examples}{instruction}: {text}",
        "few_shot": {"max_examples": 3, "example": "{query} = {response}", "separator": "; "},
        "max_query_tokens": 120,
    }
)


def collations(teacher: bool = False) -> dict[str, Collation]:
    """Three sources of one batch, each with its own templates, limits and negatives."""

    def make(name: str, rows: list[Row], source: Source, num_negatives: int) -> Collation:
        text = source_text(FORMAT, source, seed=7)
        lookup = lengths if teacher else None
        return Collation(name, rows, text, tiny_tokenizer(True), True, num_negatives, 7, lookup)

    return {
        "faq": make("faq", FAQ, Source(rows="faq.parquet", instruction="Find"), 1),
        "pairs": make("pairs", PAIRS, Source(rows="pairs.parquet", query="{text}", symmetric=True), 0),
        "words": make("words", FAQ, WORDS, 0),
    }


def lengths(
    texts: Sequence[str], side: Literal["query", "document"], instructions: Sequence[str] = ()
) -> np.ndarray:
    return np.array([[len(text), side == "query"] for text in texts], np.float32).reshape(len(texts), 2)


def planned(step: int = 4) -> PlannedBatch:
    parts = ((0, [8, 2, 5]), (1, [6, 0]), (0, [7]), (2, [3, 1]))
    source_B = np.array([source for source, rows in parts for _ in rows])
    row_B = np.array([row for _, rows in parts for row in rows])
    return PlannedBatch(step, ("faq", "pairs", "words"), source_B, row_B, 0)


def texts(batch: TokenBatch) -> list[str]:
    tokenizer = tiny_tokenizer(True)
    return [tokenizer.decode(ids) for ids in ids_of(batch)]


def same(found: ContrastiveBatch, expected: ContrastiveBatch) -> bool:
    """Every text and every number."""
    names = [name for name in ContrastiveBatch.__dataclass_fields__ if name.endswith(("_B", "_C"))]
    pairs = [(getattr(found, name), getattr(expected, name)) for name in names]
    pairs += [(found.teacher_scores[name], x) for name, x in expected.teacher_scores.items()]
    return (
        texts(found.queries) == texts(expected.queries)
        and texts(found.documents) == texts(expected.documents)
        and all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in pairs)
        and found.draw_seed == expected.draw_seed
    )


def test_parts_keep_their_own_ways_and_places() -> None:
    batch = collate_parts(planned().parts, 4, collations())
    queries = texts(batch.queries)
    assert queries[:6] == [
        "Find: how 8",
        "Find: how 2",
        "Find: how 5",
        "one 6",
        "one 0",
        "Find: how 7",
    ]
    documents = texts(batch.documents)
    assert documents[6:10] == ["other 6", "same 6", "other 0", "same 0"], "no negatives, both positives"
    assert [text.split()[0] in ("not", "nor") for text in documents[:6]] == [False, True] * 3
    assert batch.query_index_B.tolist() == list(range(8))
    assert batch.owner_C.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7]
    assert batch.graded_score_B.nan_to_num(-1).tolist() == [-1, -1, -1, 6, 0, -1, -1, -1]
    assert batch.label_B[0] == text_key("kind 0")
    assert batch.source == "several"
    assert batch.draw_seed == hash_seed(7, 4)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_hold_the_same_batch(world: int) -> None:
    """In-context examples, too: shares end to end are the whole batch."""
    whole = collate_parts(planned().parts, 4, collations(teacher=True))
    shares = [
        collate_parts(planned().local(rank, world), 4, collations(teacher=True)) for rank in range(world)
    ]
    joined = join_batches(shares)
    assert same(joined, whole)
    assert joined.teacher_vectors is not None
    assert whole.teacher_vectors is not None
    assert torch.equal(joined.teacher_vectors.queries_NK, whole.teacher_vectors.queries_NK)
    assert torch.equal(joined.teacher_vectors.documents_CK, whole.teacher_vectors.documents_CK)


def test_one_source_in_several_parts_keeps_its_name() -> None:
    faq = [part for part in planned().parts if part.source == "faq"]
    assert collate_parts(faq, 4, collations()).source == "faq"


def test_teachers_of_some_parts_only_are_refused() -> None:
    how = collations(teacher=True)
    how["pairs"] = replace(how["pairs"], teacher=None)
    with pytest.raises(ValueError, match="1 of 4 parts of the batch have no teacher vectors"):
        collate_parts(planned().parts, 4, how)


def test_examples_change_with_the_step_and_never_hold_the_row() -> None:
    how = collations()["words"]
    shown = set()
    for step in range(12):
        for row_id in range(len(FAQ)):
            (query,) = texts(collate(FAQ[row_id : row_id + 1], [0], [row_id], step, how).queries)
            *examples, own = query.split("; ")
            assert own == f"Sort: how {row_id}"
            assert f"how {row_id} = so {row_id}" not in examples
            assert len(examples) <= 3
            assert len(set(examples)) == len(examples)
            shown.add((row_id, tuple(examples)))
    assert len(shown) > 60
    assert {len(examples) for _, examples in shown} == {0, 1, 2, 3}


def test_examples_are_left_out_before_a_query_is_cut() -> None:
    how = collations()["words"]
    assert how.text.few_shot is not None
    few = FewShot.model_validate(how.text.few_shot.model_dump() | {"min_examples": 3})
    shortest = len(tiny_tokenizer(True).encode("Sort: how 0"))
    seen = set()
    for limit in range(shortest, 90):
        narrow = replace(how, text=replace(how.text, max_query_tokens=limit, few_shot=few))
        batch = collate(FAQ[:1], [0], [0], 0, narrow)
        assert texts(batch.queries)[0].endswith("Sort: how 0"), limit
        assert int(batch.queries.lengths_T) <= limit
        seen.add(texts(batch.queries)[0].count("; "))
    assert seen == {0, 1, 2, 3}


def test_batches_made_in_the_background_are_the_same() -> None:
    how = collations()

    def make(step: int) -> ContrastiveBatch:
        return collate_parts(planned(step).parts, step, how)

    with feed(make, range(20), num_workers=3, num_ahead=6) as batches:
        for step, batch in enumerate(batches):
            assert same(batch, make(step))
    assert not same(make(0), make(1)), "the premise: steps differ"
