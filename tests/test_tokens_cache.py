"""Token ids kept on disk: what is read is what tokenising on the spot gives, and it is made once."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import TEXTS, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from embedtrain.batch import ContrastiveBatch, TokenBatch
from embedtrain.collate import Collation, collate_parts
from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import FewShot, Source
from embedtrain.data.rows import Row, write_rows
from embedtrain.data.store import RowStore, open_rows
from embedtrain.data.tokens import cache as cache_module
from embedtrain.data.tokens.cache import TokenCache, open_tokens
from embedtrain.data.tokens.encode import encode
from embedtrain.data.tokens.entries import Entries
from embedtrain.mixture import Part
from embedtrain.text import SourceText, format_query, source_text

NUM_ROWS = 60
FORMAT = TextFormat(
    query="Instruct: {instruction}\nQuery:{text}",
    document="passage:{text}",
    max_query_tokens=60,
    max_document_tokens=45,
)
KINDS: dict[str, dict[str, object]] = {
    "asymmetric": {},
    "symmetric": {"symmetric": True},
    "some documents instructed": {"instructed_documents_fraction": 0.5},
    "plain": {"query": "{text}", "document": "{text}"},
    "own limits": {"max_query_tokens": 50, "max_document_tokens": 70},
    "few-shot": {
        "query": "{examples}Instruct: {instruction}\nQuery:{text}",
        "few_shot": FewShot(min_examples=0, max_examples=2, max_query_tokens=9, max_response_tokens=9),
        "max_query_tokens": 160,
    },
}


def some_rows(number: int = NUM_ROWS) -> list[Row]:
    """Ragged rows: texts in several rows and on both sides, some with an instruction of their own."""
    words = " ".join(TEXTS).split()

    def text(i: int) -> str:
        return " ".join(words[(7 * i + j) % len(words)] for j in range(2 + i % 19))

    return [
        Row(
            query=text(i),
            positives=tuple(text(5000 + i // 2 * 3 + j) for j in range(1 + i % 3)),
            negatives=tuple(text(i + 40 + 11 * j) + " not" for j in range(i % 5)),
            instruction=(None, "Find the answer", "")[i % 7 % 3],
        )
        for i in range(number)
    ]


@pytest.fixture(autouse=True)
def small_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, with many shards and blocks."""
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache_module, "TEXTS_PER_SHARD", 16)
    monkeypatch.setattr(cache_module, "ENTRIES_PER_BLOCK", 5)


@pytest.fixture
def store(tmp_path: Path) -> RowStore:
    return open_rows(write_rows(tmp_path / "rows.parquet", some_rows()))


def make_text(**source: object) -> SourceText:
    settings = {"rows": "rows.parquet", "instruction": "Answer"} | source
    return source_text(FORMAT, Source.model_validate(settings), seed=3)


def open_cache(
    store: RowStore, text: SourceText, folder: Path, tokenizer: Tokenizer | None = None, pool: bool = True
) -> TokenCache:
    entries = Entries(store, text, negatives=True)
    return open_tokens(entries, tokenizer or tiny_tokenizer(True), pool, folder, "faq")


def tensors(batch: ContrastiveBatch) -> Iterator[tuple[str, torch.Tensor]]:
    for name in ("queries", "documents"):
        tokens: TokenBatch = getattr(batch, name)
        yield from ((f"{name}.{field.name}", getattr(tokens, field.name)) for field in fields(tokens))
    yield from ((f.name, getattr(batch, f.name)) for f in fields(batch) if f.name.endswith(("_B", "_C")))


@pytest.mark.parametrize("pool_instruction", [True, False])
@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_same_with_and_without(
    store: RowStore, tmp_path: Path, kind: str, decoder: bool, pool_instruction: bool
) -> None:
    """Every template kind, bit for bit, from rows read in full and from slices; in memory and on disk."""
    text, tokenizer = make_text(**KINDS[kind]), tiny_tokenizer(decoder)
    plain = Collation("faq", some_rows(), text, tokenizer, pool_instruction, num_negatives=2, seed=7)
    tokens = open_cache(store, text, tmp_path / "tokens", tokenizer, pool_instruction)
    assert len(tokens.shards) > 5, "the premise: several shards"
    parts = [Part("faq", np.array([5, 59, 0, 44, 17, 18, 12]), 2), Part("faq", np.array([7, 31]), 9)]
    for step in range(3):
        here = collate_parts(parts, step, {"faq": plain})
        cached = collate_parts(parts, step, {"faq": replace(plain, rows=store, tokens=tokens)})
        assert here.queries.lengths_T.max() > 30, "the premise: queries of several tokens"
        for (name, expected), (_, found) in zip(tensors(here), tensors(cached), strict=True):
            assert found.dtype == expected.dtype, name
            assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1)), name


def test_each_string_is_kept_once(store: RowStore, tmp_path: Path) -> None:
    text, tokenizer = make_text(), tiny_tokenizer(True)
    tokens = open_cache(store, text, tmp_path, tokenizer)
    rows = some_rows()
    queries = {format_query(text, row.query, row.instruction).text for row in rows}
    documents = {"passage:" + text for row in rows for text in (*row.positives, *row.negatives)}
    assert len(documents) < sum(len(row.positives) + len(row.negatives) for row in rows), "the premise"
    lengths = {s: len(tokenizer.encode(s)) for s in (*queries, *documents)}
    assert tokens.facts["strings"] == len(queries) + len(documents)
    assert tokens.facts["cut"] == sum(
        lengths[s] > limit for strings, limit in ((queries, 60), (documents, 45)) for s in strings
    )
    assert tokens.facts["cut"] > 0
    kept = sum(min(lengths[s], 60) for s in queries) + sum(min(lengths[s], 45) for s in documents)
    assert tokens.facts["tokens"] == kept


def test_negatives_are_left_out_where_no_one_asks(store: RowStore, tmp_path: Path) -> None:
    entries = Entries(store, make_text(), negatives=False)
    tokens = open_tokens(entries, tiny_tokenizer(True), True, tmp_path, "faq")
    assert len(tokens.documents([4, 4], [0, 1])) == 2
    with pytest.raises(KeyError, match="no tokens for code"):
        tokens.documents([4], [2])


def test_made_once_and_anew_for_all_that_matters(
    store: RowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*args: object) -> object:
        calls.append(args)
        return encode(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "encode", counted)

    def made(text: SourceText, *args: object, rows: RowStore = store) -> bool:
        before = len(calls)
        open_cache(rows, text, tmp_path / "tokens", *args)  # type: ignore[arg-type]
        return len(calls) > before

    assert made(make_text())
    assert not made(make_text())
    assert not made(replace(make_text(), seed=4)), "nothing depends on the seed"
    assert made(make_text(max_query_tokens=20))
    assert made(make_text(document="{text}"))
    assert made(make_text(instruction="Other"))
    assert made(make_text(), tiny_tokenizer(False))
    assert made(make_text(), tiny_tokenizer(True), False)
    assert made(make_text(), rows=store.take(np.arange(20)))
    instructed = make_text(instructed_documents_fraction=0.5)
    assert made(instructed)
    assert made(replace(instructed, seed=4))


def test_of_several_processes_one_makes_it(
    store: RowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Locks of one process stand for those of several: each opening has its own."""
    start = threading.Barrier(4)

    def open_at_once(_: int) -> list[int]:
        start.wait()
        return open_cache(store, make_text(), tmp_path / "tokens").queries([3, 9]).ids.tolist()

    with ThreadPoolExecutor(4) as openers:
        found = list(openers.map(open_at_once, range(4)))
    assert all(ids == found[0] for ids in found)
    counts = re.findall(r"^tokenise faq: .* tokens, \d+ strings cut", capsys.readouterr().err, re.MULTILINE)
    assert len(counts) == 1


def test_a_view_of_the_rows(store: RowStore, tmp_path: Path) -> None:
    text, numbers = make_text(), np.array([3, 8, 40, 41])
    whole = open_cache(store, text, tmp_path)
    part = open_cache(store.take(numbers), text, tmp_path)
    assert part.facts["strings"] < whole.facts["strings"]
    for found, expected in (
        (part.queries([0, 1, 2, 3]), whole.queries(numbers.tolist())),
        (part.documents([2, 2, 3], [0, 1, 0]), whole.documents([40, 40, 41], [0, 1, 0])),
    ):
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.lengths_T.tolist() == expected.lengths_T.tolist()


KILLED = """
import os, signal, sys
from pathlib import Path
from tokenizers import Tokenizer
from embedtrain.data.store import open_rows
from embedtrain.data.tokens import cache
from embedtrain.data.tokens.entries import Entries
from embedtrain.text import SourceText

def encode(*args, calls=[]):
    calls.append(args)
    if len(calls) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return done(*args)

done, cache.encode = cache.encode, encode
cache.TEXTS_PER_SHARD, cache.ENTRIES_PER_BLOCK = 16, 5
text = SourceText("{text}", "passage:{text}", 40, 12)
entries = Entries(open_rows(sys.argv[1]), text, negatives=True)
cache.open_tokens(entries, Tokenizer.from_file(sys.argv[2]), True, Path(sys.argv[3]), "faq")
"""


def test_killed_in_the_middle_it_goes_on(
    store: RowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished shards are not made again, and the result is that of an unbroken build."""
    tiny_tokenizer(True).save(str(tmp_path / "tokenizer.json"))
    args = [str(tmp_path / name) for name in ("rows.parquet", "tokenizer.json", "tokens")]
    assert subprocess.run([sys.executable, "-c", KILLED, *args], check=False).returncode == -9
    (folder,) = (path for path in (tmp_path / "tokens").iterdir() if path.is_dir())
    left = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.entries.npy")}
    assert left
    assert not (folder / "done.json").exists()
    text = SourceText("{text}", "passage:{text}", 40, 12)
    tokens = open_cache(store, text, tmp_path / "tokens")
    assert {name: (folder / name).stat().st_mtime_ns for name in left} == left, "kept as they were"
    assert len(tokens.shards) > len(left)
    open_cache(store, text, tmp_path / "unbroken")
    (unbroken,) = (path for path in (tmp_path / "unbroken").iterdir() if path.is_dir())
    found, expected = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (folder, unbroken))
    assert found == expected


def test_a_text_with_nothing_to_pool_is_named(store: RowStore, tmp_path: Path) -> None:
    text = make_text(
        instruction="A long instruction that fills all of the room there is here", max_query_tokens=16
    )
    with pytest.raises(UserError, match=r"source 'faq': no token of 'Instruct: A long .* within 16 tokens"):
        open_cache(store, text, tmp_path / "tokens", pool=False)
    assert not list((tmp_path / "tokens").rglob("done.json"))


@pytest.mark.parametrize(("highest", "dtype"), [(65535, "uint16"), (65536, "uint32")])
def test_ids_take_two_bytes_where_they_can(store: RowStore, tmp_path: Path, highest: int, dtype: str) -> None:
    vocabulary = {"[UNK]": 5, "passage": highest, ":": 9}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = open_cache(store, make_text(), tmp_path, tokenizer)
    assert tokens.shards[0].ids.dtype == dtype
    assert tokens.documents([0], [0]).ids[:3].tolist() == [highest, 9, 5]
