"""Every example of docs/data.md: its command, run on its files, gives its rows, and a batch of them."""

import math
import runpy
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from contrastive import tiny_encoder
from data_page import PAGE, Example, read_examples, write_files
from token_ids import ids_of
from typer.testing import CliRunner

from embedtrain.cli import app
from embedtrain.collate import Collation, collate
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.convert.tasks import TASKS
from embedtrain.data.formats.table import FORMATS
from embedtrain.data.rows import Row
from embedtrain.data.store import RowStore, open_rows
from embedtrain.model.encoder import Encoder
from embedtrain.text import source_text

EXAMPLES = list(read_examples())


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder("lora")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.out)
def test_the_command_gives_the_rows_shown_and_their_batch(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: Encoder
) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, example.files)
    program, *words = shlex.split(example.command)
    if program == "python":
        runpy.run_path(words[0])
    else:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert f"{example.out}: {len(example.rows)} rows" in done.output
    store = open_rows(tmp_path / example.out)
    assert list(store) == example.rows
    check_batch(store, example.rows, encoder)


def check_batch(store: RowStore, rows: Sequence[Row], encoder: Encoder) -> None:
    """All rows as one batch hold what the rows shown say: strings as token ids, owners, scores, grades."""
    text = TextFormat(query="{instruction}: {text}", document="passage: {text}")
    how = Collation(
        name="shown",
        rows=store,
        text=source_text(text, Source(rows="shown")),
        tokenizer=encoder.tokenizer,
        pool_instruction=True,
        num_negatives=9,
        seed=0,
    )
    numbers = range(len(rows))
    batch = collate([store[number] for number in numbers], numbers, numbers, 1, how)
    assert ids_of(batch.queries) == [
        encoder.tokenizer.encode(f"{row.instruction or ''}: {row.query}").ids for row in rows
    ]
    documents = [(number, True, text) for number, row in enumerate(rows) for text in row.positives]
    documents += [(number, False, text) for number, row in enumerate(rows) for text in row.negatives]
    documents.sort(key=lambda document: document[:1])
    assert list(zip(batch.owner_C.tolist(), batch.is_positive_C.tolist(), strict=True)) == [
        document[:2] for document in documents
    ]
    assert ids_of(batch.documents) == [
        encoder.tokenizer.encode(f"passage: {text}").ids for *_, text in documents
    ]
    scores = [
        score
        for row in rows
        for score in (*some(row.positive_scores, row.positives), *some(row.negative_scores, row.negatives))
    ]
    assert np.array_equal(batch.teacher_scores["scores"].numpy(), scores, equal_nan=True)
    grades = [math.nan if row.score is None else row.score for row in rows]
    assert np.array_equal(batch.graded_score_B.numpy(), grades, equal_nan=True)


def some(scores: Sequence[float] | None, texts: Sequence[str]) -> Sequence[float]:
    """The scores, or NaN for each text."""
    return scores or [math.nan] * len(texts)


def test_every_format_and_task_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in (*FORMATS, *TASKS) if f"`{name}`" not in page] == []
    assert len(EXAMPLES) >= len(FORMATS)
