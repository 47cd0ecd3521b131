"""Rows with every fault that an audit looks for, and stores of them."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import strategies as st

from embedtrain.data.rows import Row
from embedtrain.data.store import RowStore, store_rows

words = st.sampled_from(["a", "A", "b", "c", "É", "語", "x\x00", "\ufffd", "!"])
texts = st.lists(words, min_size=1, max_size=3).map(" ".join)
rows = st.builds(
    Row,
    query=texts,
    positives=st.lists(texts, min_size=1, max_size=3).map(tuple),
    negatives=st.lists(texts, max_size=3).map(tuple),
)
sources = st.lists(st.lists(rows, min_size=1, max_size=8), min_size=1, max_size=3)


def store_all(made: Sequence[Sequence[Row]], folder: Path) -> dict[str, RowStore]:
    return {f"s{i}": store_rows(part, folder / f"s{i}") for i, part in enumerate(made)}


def new_folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("audit")
