"""Typed batches, and rows collated into them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from contrastive import make_batch, ragged_rows, tiny_encoder
from hypothesis import given
from hypothesis import strategies as st
from test_loss_objective import random_gathered
from token_ids import ids_of

from embedtrain.batch import ContrastiveBatch, TokenBatch, join
from embedtrain.collate import Collation, collate, draw_negatives
from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.rows import Row, text_key
from embedtrain.model.encoder import Encoder
from embedtrain.text import source_text


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder("lora")


LENGTHS = st.lists(st.integers(0, 9), max_size=12)


def tokens(lengths: list[int]) -> TokenBatch:
    """Texts of these lengths; the ids tell text and place, and so does the first pooled token."""
    batch = TokenBatch.of([text_ids(row, length) for row, length in enumerate(lengths)])
    return replace(batch, first_T=torch.arange(len(lengths)) % 3)


def text_ids(row: int, length: int) -> list[int]:
    return [100 * row + place + 1 for place in range(length)]


def size_of(lengths: list[int], padded: bool) -> int:
    return len(lengths) * max(lengths) if padded else sum(lengths)


@given(LENGTHS, st.integers(1, 40), st.booleans())
def test_chunks_hold_every_text_once_within_the_budget(lengths: list[int], budget: int, padded: bool) -> None:
    """Longest first; a chunk is closed only where the next text would not fit."""
    batch, parts = tokens(lengths), []
    for rows, chunk in batch.chunks(budget, padded=padded):
        assert ids_of(chunk) == [text_ids(row, lengths[row]) for row in rows.tolist()]
        assert chunk.first_T.tolist() == [row % 3 for row in rows.tolist()]
        parts.append([lengths[row] for row in rows.tolist()])
        assert len(rows) == 1 or size_of(parts[-1], padded) <= budget
    for part, following in pairwise(parts):
        assert size_of([*part, following[0]], padded) > budget
    seen = [row for rows, _ in batch.chunks(budget, padded=padded) for row in rows.tolist()]
    assert sorted(seen) == list(range(len(lengths)))
    assert [lengths[row] for row in seen] == sorted(lengths, reverse=True)


def test_a_padded_chunk_holds_no_more_than_a_packed_one() -> None:
    """The same texts: their longest counts for all of them."""
    sizes = [
        [len(rows) for rows, _ in tokens([8, 2, 2, 2]).chunks(16, padded=padded)] for padded in (False, True)
    ]
    assert sizes == [[4], [2, 2]]


def test_join_keeps_the_order() -> None:
    both = join(tokens([2, 1]), tokens([4]))
    assert both.lengths_T.tolist() == [2, 1, 4]
    assert ids_of(both) == [[1, 2], [101], [1, 2, 3, 4]]
    assert both.first_T.tolist() == [0, 1, 0]
    assert len(join(tokens([]), tokens([3]))) == 1


@given(LENGTHS, st.data())
def test_take_gives_the_texts_in_the_order_asked(lengths: list[int], data: st.DataObject) -> None:
    """With repeats, and with texts that have no token."""
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=9)) if lengths else []
    for asked in (rows, torch.tensor(rows, dtype=torch.int64)):
        taken = tokens(lengths).take(asked)
        assert ids_of(taken) == [text_ids(row, lengths[row]) for row in rows]
        assert taken.first_T.tolist() == [row % 3 for row in rows]
        assert taken.ids_P.dtype == taken.lengths_T.dtype == torch.int64


@given(LENGTHS)
def test_places_and_starts_count_from_each_text(lengths: list[int]) -> None:
    batch = tokens(lengths)
    assert batch.num_tokens == sum(lengths) == len(batch.ids_P)
    assert batch.starts_T.tolist() == [sum(lengths[:row]) for row in range(len(lengths))]
    assert batch.places_P.tolist() == [place for length in lengths for place in range(length)]


def test_a_wrong_size_is_refused_at_both_doors(encoder: Encoder) -> None:
    batch = make_batch(encoder, ragged_rows())
    with pytest.raises(ValueError, match=r"ContrastiveBatch\.owner_C has 20 values, expected 21"):
        replace(batch, owner_C=batch.owner_C[:-1])
    with pytest.raises(ValueError, match=r"source 'faq': 1 of 7 queries have no positive"):
        replace(batch, is_positive_C=batch.is_positive_C & (batch.owner_C != 2))
    with pytest.raises(ValueError, match=r"Gathered\.query_key_A has 3 values, expected 4"):
        replace(random_gathered(), query_key_A=torch.arange(3))
    with pytest.raises(ValueError, match=r"TokenBatch\.first_T has 2 values, lengths_T has 1"):
        replace(tokens([3]), first_T=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"TokenBatch\.ids_P has 3 tokens, lengths_T sum to 4"):
        replace(tokens([3]), lengths_T=torch.tensor([4]))


def how(
    encoder: Encoder, source: Source | None = None, rows: Sequence[Row] = (), **changes: int | bool
) -> Collation:
    fmt = TextFormat(
        query="{instruction}: {text}",
        document="passage: {text}",
        max_query_tokens=16,
        max_document_tokens=32,
    )
    settings = {"pool_instruction": True, "num_negatives": 2, "seed": 7}
    return Collation(
        name="faq",
        rows=rows,
        text=source_text(fmt, source or Source(rows="rows.parquet")),
        tokenizer=encoder.tokenizer,
        **(settings | changes),  # type: ignore[arg-type]
    )


def texts(encoder: Encoder, batch: TokenBatch) -> list[str]:
    return [encoder.tokenizer.decode(ids) for ids in ids_of(batch)]


ROWS = [
    Row("a", ("b",), ("n1", "n2", "n3", "n4")),
    Row("c", ("d", "e"), ("n5",), instruction="Own"),
    Row("f", ("g",)),
]


def test_collated_texts_owners_and_keys(encoder: Encoder) -> None:
    source = Source(rows="rows.parquet", instruction="Find")
    batch = collate(ROWS, [4, 5, 6], [10, 11, 12], 3, how(encoder, source))
    assert texts(encoder, batch.queries) == ["Find: a", "Own: c", "Find: f"]
    drawn = draw_negatives(ROWS[0], 10, 3, how(encoder))
    expected = ["b", *(ROWS[0].negatives[i] for i in drawn), "d", "e", "n5", "g"]
    assert texts(encoder, batch.documents) == [f"passage: {text}" for text in expected]
    assert batch.query_index_B.tolist() == [4, 5, 6]
    assert batch.owner_C.tolist() == [4, 4, 4, 5, 5, 5, 6]
    assert batch.is_positive_C.tolist() == [True, False, False, True, True, False, True]
    assert batch.document_key_C.tolist() == [text_key(text) for text in expected]
    assert batch.query_key_B.tolist() == [text_key(row.query) for row in ROWS]


def test_negatives_are_drawn_by_seed_step_and_row(encoder: Encoder) -> None:
    """In stored order, without repeats, the same on any share of the rows."""
    row = Row("a", ("b",), tuple(f"n{i}" for i in range(8)))
    draws = {
        (seed, step, row_id): tuple(draw_negatives(row, row_id, step, how(encoder, seed=seed)))
        for seed in range(3)
        for step in range(5)
        for row_id in range(5)
    }
    assert len(set(draws.values())) > 20
    assert all(list(d) == sorted(set(d)) and len(d) == 2 for d in draws.values())
    whole = collate(ROWS, range(3), [10, 11, 12], 3, how(encoder))
    part = collate(ROWS[:1], range(1), [10], 3, how(encoder))
    assert part.document_key_C.tolist() == whole.document_key_C[:3].tolist()
    assert whole.draw_seed == part.draw_seed
    assert whole.draw_seed != collate(ROWS, range(3), range(3), 4, how(encoder)).draw_seed
    assert draw_negatives(row, 0, 0, how(encoder, num_negatives=0)) == []


def test_token_limits_of_the_source_win(encoder: Encoder) -> None:
    long = [Row("word " * 90, ("word " * 90,))]

    def lengths(**source: int | bool) -> tuple[int, int]:
        collation = how(encoder, Source(rows="rows.parquet", **source))  # type: ignore[arg-type]
        batch = collate(long, [0], [0], 0, collation)
        return int(batch.queries.lengths_T), int(batch.documents.lengths_T)

    assert lengths() == (16, 32)
    assert lengths(max_query_tokens=20, max_document_tokens=40) == (20, 40)
    assert lengths(symmetric=True) == (16, 16)


def test_a_text_that_leaves_nothing_to_pool_is_refused(encoder: Encoder) -> None:
    source = Source(rows="rows.parquet", instruction="A long instruction that fills all the room there is")
    with pytest.raises(
        UserError, match=r"source 'faq': no token of 'A long .* within 16 tokens; mend the text"
    ):
        collate(ROWS, range(3), range(3), 0, how(encoder, source, pool_instruction=False))


def test_an_empty_share(encoder: Encoder) -> None:
    batch = collate([], [], [], 3, how(encoder))
    assert isinstance(batch, ContrastiveBatch)
    assert (len(batch.queries), len(batch.documents)) == (0, 0)
