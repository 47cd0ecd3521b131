"""`embedtrain encode`: the vectors of a file's lines, by a side or by a named prompt."""

from pathlib import Path

import numpy as np
import pytest
from exports import INSTRUCTED, QUERIES, source_prompts, tiny_encoder

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.model.export import export_encoder
from embedtrain.model.parity import cosine_distances
from embedtrain.model.st import open_sentence_transformer
from embedtrain.stages.encode import encode_file


@pytest.mark.parametrize("pool_instruction", [True, False])
def test_sides_and_prompts_are_those_of_sentence_transformers(tmp_path: Path, pool_instruction: bool) -> None:
    encoder = tiny_encoder(tmp_path / "base", text=INSTRUCTED, pool_instruction=pool_instruction)
    sources = source_prompts(encoder, {"faq": {"instruction": "find {text} it"}})
    export_encoder(encoder, tmp_path / "model", sources=sources)
    texts, out = tmp_path / "texts.txt", tmp_path / "vectors.npy"
    texts.write_text("\n".join(QUERIES) + "\n")
    theirs = open_sentence_transformer(tmp_path / "model").model
    for side, prompt, expected in (
        ("query", None, theirs.encode_query(QUERIES)),
        ("document", None, theirs.encode_document(QUERIES)),
        ("query", "faq", theirs.encode(QUERIES, prompt_name="faq")),
    ):
        encode_file(str(tmp_path / "model"), texts, out, side, Machine(), prompt)
        found = np.load(out)
        assert found.dtype == np.float32
        assert cosine_distances(found, expected).max() <= 1e-6
    with pytest.raises(UserError) as error:
        encode_file(str(tmp_path / "model"), texts, out, "query", Machine(), "fag")
    assert str(error.value) == f"--prompt fag: {tmp_path / 'model'} has no such prompt; did you mean 'faq'?"


@pytest.mark.parametrize(
    ("content", "side", "message"),
    [
        (b"a", "both", "--side both: expected query or document"),
        (b"", "query", "empty; expected one text a line"),
        (b"a\xff", "query", "not UTF-8 text (invalid start byte at byte 1)"),
        (None, "query", "no such file"),
    ],
)
def test_what_cannot_be_encoded(tmp_path: Path, content: bytes | None, side: str, message: str) -> None:
    if content is not None:
        (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        encode_file("none", tmp_path / "texts.txt", tmp_path / "out.npy", side, Machine())
    assert message in str(error.value)
    assert not (tmp_path / "out.npy").exists()
