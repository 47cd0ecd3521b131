"""A row that no batch can be made of: the step, the source and the row are named, and nothing hangs."""

import re
from pathlib import Path
from typing import Any

import pytest
import training
from contrastive import tiny_folder
from training import sources, tiny_stage, train_tiny

from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row


def spoilt(monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    """The row stands in the place of source faq's fifth."""
    rows = sources()
    rows["faq"][4] = row
    monkeypatch.setattr(training, "sources", lambda: rows)


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: Any = ("high",)
    spoilt(monkeypatch, Row("a query", ("a text",), positive_scores=words))
    with pytest.raises(UserError) as error:
        train_tiny(tiny_folder(), tmp_path, tiny_stage())
    assert re.fullmatch(
        r"stage 'tune', step \d, source 'faq', row 4: (Type|Value)Error: .*(str|high).*", str(error.value)
    )


def test_a_row_that_has_nothing_to_pool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, Row("", ("a text",)))
    with pytest.raises(UserError) as error:
        train_tiny(tiny_folder(), tmp_path, tiny_stage())
    assert str(error.value).startswith("stage 'tune', step ")
    assert "row 4: source 'faq'" in str(error.value)
