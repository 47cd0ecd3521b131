"""The token ids of a batch, text by text."""

from embedtrain.batch import TokenBatch


def ids_of(batch: TokenBatch) -> list[list[int]]:
    """The ids of each text."""
    return [text.tolist() for text in batch.ids_P.split(batch.lengths_T.tolist())]


def pooled_of(batch: TokenBatch) -> list[list[int]]:
    """Those of them that count in the pool."""
    return [ids[first:] for ids, first in zip(ids_of(batch), batch.first_T.tolist(), strict=True)]
