"""Prompts of an export that show a source's examples, by their own name and by default."""

from dataclasses import replace
from pathlib import Path

import pytest
from exports import DOCUMENTS, QUERIES, source_prompts, tiny_encoder
from pydantic import ValidationError

from embedtrain.artifacts import read_json
from embedtrain.config.schema import EncoderConfig, TextFormat
from embedtrain.config.stages import Export
from embedtrain.model.export import export_encoder
from embedtrain.model.parity import check_parity

INSTRUCTED = "Instruct: {instruction}\nQuery:{text}"
FMT = TextFormat(query="{examples}" + INSTRUCTED, max_query_tokens=200, max_document_tokens=200)
FEW_SHOT = {"max_examples": 2, "max_tokens": 500, "max_query_tokens": 9, "max_response_tokens": 5}


def test_examples_by_default(tmp_path: Path) -> None:
    """Queries of the source and its tasks show the examples; documents and other sources never do."""
    encoder = tiny_encoder(tmp_path / "base", text=FMT)
    values: dict[str, dict[str, object]] = {
        "faq": {"instruction": "find", "few_shot": FEW_SHOT},
        "sts": {"instruction": "same", "symmetric": True, "few_shot": FEW_SHOT},
        "other": {"instruction": "look"},
    }
    shown = {"faq": {2: "a b\n\n"}, "sts": {1: "c\n\n"}}
    sources = {
        name: replace(source, tasks=(name.upper(),), examples=shown.get(name, {}), by_default=True)
        for name, source in source_prompts(encoder, values).items()
    }
    export_encoder(encoder, tmp_path / "model", sources=sources)
    find, same, look = (f"Instruct: {text}\nQuery:" for text in ("find", "same", "look"))
    faq, sts = f"a b\n\n{find}", f"c\n\n{same}"
    assert read_json(tmp_path / "model/config_sentence_transformers.json")["prompts"] == {
        "query": "Instruct: \nQuery:", "document": "",
        "faq": faq, "FAQ": faq, "FAQ-query": faq, "FAQ-document": "", "faq_2_shot": faq, "faq_0_shot": find,
        "sts": sts, "sts_document": same, "STS": sts, "STS-query": sts, "STS-document": same,
        "sts_1_shot": sts, "sts_0_shot": same,
        "other": look, "OTHER": look, "OTHER-query": look, "OTHER-document": "",
    }  # fmt: skip
    assert check_parity(encoder, tmp_path / "model", QUERIES, DOCUMENTS, sources=sources)


def test_default_examples_need_examples() -> None:
    stage = {"name": "final", "kind": "export", "from": "tuned", "few_shot_by_default": True}
    with pytest.raises(ValidationError, match="few_shot_by_default is on, but few_shot_examples names no"):
        Export.model_validate(stage)


def test_the_first_token_is_not_left_out_of_its_own_pool() -> None:
    with pytest.raises(ValidationError, match="pooling is 'cls', the first token's state, and pool_instruct"):
        EncoderConfig.model_validate({"pooling": "cls", "pool_instruction": False})
