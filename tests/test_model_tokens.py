"""Tokens: whole strings, kept special tokens, the pool mask, and the appended end token."""

from pathlib import Path

import pytest
import torch
from tiny_models import TEXTS, save_tiny, tiny_tokenizer
from token_ids import ids_of, pooled_of
from tokenizers import processors
from transformers import AutoTokenizer

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model import tokens
from embedtrain.model.load import load_encoder
from embedtrain.model.tokens import append_token, batches, load_tokenizer, tokenize
from embedtrain.text import Formatted

BOS, EOS = 0, 2


def plain(texts: tuple[str, ...]) -> list[Formatted]:
    return [Formatted(text, 0) for text in texts]


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("max_tokens", [5, 9, 128])
def test_ids_equal_transformers(tmp_path: Path, family: str, max_tokens: int) -> None:
    """Truncation included: an encoder's closing token stays."""
    path = save_tiny(family, tmp_path)
    theirs = AutoTokenizer.from_pretrained(path)(list(TEXTS), truncation=True, max_length=max_tokens)[
        "input_ids"
    ]
    ours = ids_of(tokenize(load_tokenizer(path), plain(TEXTS), max_tokens, True))
    assert ours == theirs
    assert all(len(ids) <= max_tokens for ids in ours)


def test_padding_and_truncation_in_the_file_are_off(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(False)
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert ids_of(tokenize(load_tokenizer(tmp_path), plain(TEXTS), 512, True)) == ids_of(
        tokenize(tiny_tokenizer(False), plain(TEXTS), 512, True)
    )


def test_nothing_is_padded() -> None:
    tokenizer = tiny_tokenizer(True)
    batch = tokenize(tokenizer, plain(("a", "a longer text")), 64, True)
    assert ids_of(batch) == [tokenizer.encode(text).ids for text in ("a", "a longer text")]
    assert batch.lengths_T[0] == 1 < batch.lengths_T[1]
    assert {x.dtype for x in (batch.ids_P, batch.lengths_T, batch.first_T)} == {torch.int64}
    assert pooled_of(batch) == ids_of(batch)


def test_texts_without_tokens() -> None:
    for texts in ((), ("",), ("", "")):
        batch = tokenize(tiny_tokenizer(True), plain(texts), 8, True)
        assert len(batch) == len(texts)
        assert ids_of(batch) == [[] for _ in texts]
        assert batch.num_tokens == len(batch.ids_P) == 0


@pytest.mark.parametrize("decoder", [True, False])
def test_instruction_leaves_the_pool(decoder: bool) -> None:
    """By characters: what a pooled token covers lies in the text, what is left out lies before it."""
    tokenizer = tiny_tokenizer(decoder)
    before = "Find an answer.\nQuery:"
    formatted = [Formatted(before + text, len(before)) for text in TEXTS]
    batch = tokenize(tokenizer, formatted, 512, False)
    for f, text, ids, kept in zip(formatted, TEXTS, ids_of(batch), pooled_of(batch), strict=True):
        left_out = ids[: len(ids) - len(kept)]
        assert tokenizer.decode(kept) == text
        assert tokenizer.decode(left_out) == before
        assert (kept[-1] == EOS) == (not decoder), "the closing token counts"
        assert decoder or left_out[0] == BOS, "the opening token is instruction"
        assert f.text == before + text


def test_without_an_instruction_all_tokens_count() -> None:
    batch = tokenize(tiny_tokenizer(False), plain(TEXTS), 512, False)
    assert pooled_of(batch) == ids_of(batch)


def test_a_token_over_the_edge_belongs_to_the_text() -> None:
    tokenizer = tiny_tokenizer(True)
    batch = tokenize(tokenizer, [Formatted("list files", 5)], 512, False)
    [kept] = pooled_of(batch)
    assert tokenizer.decode(kept) == " files"
    assert len(kept) < batch.num_tokens, "the premise: something is left out"


def test_an_instruction_that_fills_the_limit_pools_nothing() -> None:
    batch = tokenize(tiny_tokenizer(True), [Formatted("list the files in a folder: x", 28)], 3, False)
    assert batch.num_tokens == 3
    assert pooled_of(batch) == [[]]


def test_too_little_room() -> None:
    with pytest.raises(
        UserError, match="max_tokens is 2, too few for the tokenizer's special tokens and a text"
    ):
        tokenize(tiny_tokenizer(False), plain(TEXTS), 2, True)


@pytest.mark.parametrize("decoder", [True, False])
def test_end_token_is_added_once_and_survives_truncation(decoder: bool) -> None:
    before = ids_of(tokenize(tiny_tokenizer(decoder), plain(TEXTS), 6, True))
    tokenizer = append_token(append_token(tiny_tokenizer(decoder), "</s>"), "</s>")
    after = ids_of(tokenize(tokenizer, plain(TEXTS), 6, True))
    assert all(ids[-1] == EOS and ids.count(EOS) == 1 and len(ids) <= 6 for ids in after)
    expected = [[*ids[:5], EOS] if len(ids) == 6 else [*ids, EOS] for ids in before]
    assert after == (expected if decoder else before)


@pytest.mark.parametrize("byte_level", [True, False])
def test_end_token_keeps_an_opening_one(byte_level: bool) -> None:
    """Llama 3's post-processor is a sequence of byte-level and template, Llama 2's a template."""
    opening = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)])
    before = tiny_tokenizer(True)
    before.post_processor = processors.Sequence([processors.ByteLevel(), opening]) if byte_level else opening
    after = append_token(before, "</s>")
    long = ids_of(tokenize(before, plain(TEXTS), 512, True))
    assert ids_of(tokenize(after, plain(TEXTS), 512, True)) == [[*ids, EOS] for ids in long]
    assert ids_of(tokenize(after, plain(TEXTS), 6, True)) == [[*ids[:5], EOS] for ids in long]


def test_end_token_after_a_closing_one_is_refused() -> None:
    tokenizer = tiny_tokenizer(True)
    tokenizer.post_processor = processors.BertProcessing(("<pad>", 1), ("<s>", 0))
    with pytest.raises(
        UserError, match="post-processor is BertProcessing, which has an end token of its own"
    ):
        append_token(tokenizer, "</s>")


def test_append_eos_of_a_loaded_encoder_is_what_transformers_reads_back(tmp_path: Path) -> None:
    """The end token is in tokenizer.json itself, so every reader of the folder adds it."""
    path = save_tiny("llama", tmp_path / "base")
    encoder = load_encoder(Base(model=str(path)), EncoderConfig(append_eos=True), TextFormat())
    encoder.tokenizer.save(str(path / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(path)(list(TEXTS), truncation=True, max_length=7)["input_ids"]
    assert theirs == ids_of(encoder.tokenize(plain(TEXTS), 7))
    assert all(ids[-1] == EOS for ids in theirs)


def test_append_eos_without_an_end_token(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    (path / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match=r"append_eos is true, but tokenizer_config\.json names no eos_token"):
        load_encoder(Base(model=str(path)), EncoderConfig(append_eos=True), TextFormat())


def test_no_tokenizer_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json; only fast tokenizers are read"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("pool_chars", [1, 60, 1 << 22])
@pytest.mark.parametrize("budget", [1, 30, 100, 10_000])
@pytest.mark.parametrize("padded", [False, True])
def test_batches_hold_each_text_once_within_the_budget(
    monkeypatch: pytest.MonkeyPatch, padded: bool, budget: int, pool_chars: int
) -> None:
    """What was tokenised a pool at a time, in batches, is what was tokenised at once."""
    monkeypatch.setattr(tokens, "POOL_CHARS", pool_chars)
    tokenizer = tiny_tokenizer(True)
    formatted = [Formatted(f"the {text} " * (n % 5), 4) for n, text in enumerate(TEXTS * 4)]
    expected = tokenize(tokenizer, formatted, 40, False)
    seen: list[int] = []
    for places, batch in batches(tokenizer, formatted, 40, False, budget, padded=padded):
        size = len(batch) * int(batch.lengths_T.max()) if padded else batch.num_tokens
        assert len(places) == 1 or size <= budget
        assert batch.lengths_T.tolist() == sorted(batch.lengths_T.tolist(), reverse=True)
        seen += places.tolist()
        alone = expected.take(places)
        assert ids_of(batch) == ids_of(alone)
        assert pooled_of(batch) == pooled_of(alone)
    assert sorted(seen) == list(range(len(formatted)))
    assert list(batches(tokenizer, [], 40, False, budget, padded=padded)) == []
