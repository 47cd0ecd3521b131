"""Vectors from a folder: found by their texts, and refused where they are of others, broken or too few."""

from pathlib import Path

import numpy as np
import pytest
from distilling import all_texts, collect, faq, make_context, stage_of, vector_of, write_vectors

from embedtrain.artifacts import hash_file, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import resolved
from embedtrain.stages.context import StageContext
from embedtrain.stages.distil_teacher import Lectures, is_normalised, teach
from embedtrain.stages.probe import probe

QUERIES, DOCUMENTS = all_texts(faq())


def lectures_of(context: StageContext) -> Lectures:
    return teach(context, stage_of(context), collect(context))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_each_text_has_its_own_vector(tmp_path: Path, precision: str) -> None:
    """In another order than the run's, among others, one text twice."""
    context = make_context(tmp_path, vector_precision=precision)
    write_vectors(tmp_path / "vectors", ["other", *QUERIES[::-1]], [*DOCUMENTS[::-1], "more", DOCUMENTS[0]])
    found, written = lectures_of(context), collect(context)
    for side, matrix in found.vectors.items():
        expected = np.stack([vector_of(text) for text in written.texts(side)])
        assert matrix.dtype == precision
        assert isinstance(matrix, np.memmap)
        assert matrix.tolist() == expected.astype(precision).tolist()
    assert is_normalised(found.vectors)


def test_vectors_of_any_length_are_told_from_unit_ones(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    write_vectors(tmp_path / "vectors", QUERIES, DOCUMENTS, scale=1.0015)
    assert not is_normalised(lectures_of(context).vectors)
    assert is_normalised({"query": np.stack([vector_of(text) * 1.0009 for text in QUERIES])})


def refused(context: StageContext) -> str:
    """What the stage says, and nothing that looks like the teacher's vectors is left."""
    with pytest.raises(UserError) as caught:
        lectures_of(context)
    assert not (context.folder / "teacher" / "facts.json").exists()
    return str(caught.value)


def test_sides_of_other_dims(tmp_path: Path) -> None:
    context, folder = make_context(tmp_path), tmp_path / "vectors"
    np.save(folder / "document.npy", np.ones((len(DOCUMENTS), 32), np.float32))
    message = (
        f"{folder}: query.npy has vectors of 24 dims and document.npy of 32; expected the same of both, from "
        "one model"
    )
    assert refused(context) == message
    run = write_json(tmp_path / "run.json", resolved(context.run))
    with pytest.raises(UserError, match=r"query\.npy has vectors of 24 dims and document\.npy of 32"):
        probe(run)  # before the first stage starts


def test_texts_that_have_no_vector(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    write_vectors(tmp_path / "vectors", QUERIES[5:], DOCUMENTS)
    message = refused(context)
    assert message.startswith(
        f"{tmp_path}/vectors/query.txt: 5 of the run's {len(QUERIES)} query texts are not there, first '"
    )
    assert any(text[:40] in message for text in QUERIES[:5])


def test_rows_and_texts_that_are_not_equally_many(tmp_path: Path) -> None:
    context, folder = make_context(tmp_path), tmp_path / "vectors"
    with (folder / "query.txt").open("a") as file:
        file.write("one more\n\n")
    assert refused(context) == (
        f"{folder}/query.npy: found {len(QUERIES)} rows for the {len(QUERIES) + 2} texts in query.txt; "
        "expected one each"
    )


def test_vectors_of_other_texts_by_their_hash(tmp_path: Path) -> None:
    context, folder = make_context(tmp_path), tmp_path / "vectors"
    texts = folder / "query.txt"
    expected = hash_file(texts)
    write_json(folder / "vectors.json", {"query": {"sha256": expected}})
    assert len(lectures_of(context).vectors["query"]) == len(QUERIES)
    texts.write_text(texts.read_text().replace(QUERIES[3], QUERIES[3] + "!"))
    assert refused(make_context(tmp_path, "leaf-2.partial")) == (
        f"{texts}: its SHA-256 is {hash_file(texts)}, and {folder}/vectors.json expects {expected}: the "
        "vectors were made of other texts; encode these, or bring those back"
    )


def test_a_vector_that_is_not_finite(tmp_path: Path) -> None:
    context, folder = make_context(tmp_path, vector_precision="float16"), tmp_path / "vectors"
    vectors = np.load(folder / "document.npy")
    vectors[7, 3] = 1e6  # finite in float32 alone
    np.save(folder / "document.npy", vectors)
    assert refused(context) == (
        f"{folder}/document.npy: row 8 is not finite (NaN or infinite as float16): the vector of "
        f"{DOCUMENTS[7]!r}"
    )


BROKEN = [
    ("query.npy", b"", r"query\.npy: cannot be read as a NumPy array"),
    ("query.npy", b"\x93NUMPY\x01\x00rubbish", r"query\.npy: cannot be read as a NumPy array"),
    ("query.txt", b"\xff\xfe\n", r"query\.txt:1: not UTF-8 text"),
    ("document.jsonl", b'{"txt": "a"}\n', r"document\.jsonl:1: 'text': found nothing, expected text"),
    ("document.txt", b"a\n", r"in document\.txt or document\.jsonl; both are there"),
    ("document.jsonl", None, r"in document\.txt or document\.jsonl; neither is there"),
    ("vectors.json", b"{", r"vectors\.json: broken JSON"),
    ("vectors.json", b'{"query": 7}', r"vectors\.json: under 'query' found 7 \(number\), expected \{"),
    ("document.npy", None, r"vectors: found query\.npy alone, and the run has document texts to learn"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_broken_folders(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    context, path = make_context(tmp_path), tmp_path / "vectors" / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        lectures_of(context)


@pytest.mark.parametrize("shape", [(5,), (0, 4), (2, 0)])
def test_matrices_of_no_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    context, path = make_context(tmp_path), tmp_path / "vectors" / "query.npy"
    np.save(path, np.zeros(shape, np.float32))
    expected = f"{path}: found float32 of shape {shape}, expected floats of shape (texts, dims)"
    assert refused(context) == expected
    np.save(path, np.zeros((3, 2), np.int64))
    assert refused(context).startswith(f"{path}: found int64 of shape (3, 2), expected floats")
    np.save(path, np.array([{}], object), allow_pickle=True)
    assert "cannot be read as a NumPy array" in refused(context)


def test_a_folder_without_a_matrix(tmp_path: Path) -> None:
    context, folder = make_context(tmp_path), tmp_path / "vectors"
    for side in ("query", "document"):
        (folder / f"{side}.npy").unlink()
    assert refused(context) == f"{folder}: found neither query.npy nor document.npy, expected one or both"
