"""What rows know besides their texts, collated and gathered."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from contrastive import make_batch, tiny_encoder, tiny_folder
from processes import run_on
from test_batch import how

from embedtrain.batch import Gathered
from embedtrain.collate import collate, draw_negatives
from embedtrain.config.sources import Source
from embedtrain.data.rows import Row, text_key
from embedtrain.dist import current, gather_vectors
from embedtrain.model.encoder import Encoder
from embedtrain.train.step import gather_batch

ROWS = [
    Row("a", ("b", "c"), ("n1", "n2", "n3", "n4"), (0.9, 0.8), (0.1, 0.2, 0.3, 0.4), label="red"),
    Row("d", ("e",), ("n5",), score=3.5),
    Row("f", ("g",), ("n6", "n7"), None, (0.6, 0.7), label="blue"),
    Row("h", ("i",), ("n8",), (0.5,), label="red"),
]
NAN = float("nan")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder("lora")


def lengths(
    texts: Sequence[str], side: Literal["query", "document"], instructions: Sequence[str] = ()
) -> np.ndarray:
    """Vectors (N, 2): the text's key, cut, and its side."""
    rows = [[text_key(text) % 1000, side == "query"] for text in texts]
    return np.array(rows, dtype=np.float32).reshape(len(texts), 2)


def test_labels_scores_and_grades(encoder: Encoder) -> None:
    """The scores are those of the negatives that were drawn."""
    batch = collate(ROWS, range(4), [7, 8, 9, 10], 3, how(encoder))
    drawn = draw_negatives(ROWS[0], 7, 3, how(encoder))
    assert len(drawn) == 2
    red, blue = text_key("red"), text_key("blue")
    assert batch.label_B.tolist() == [red, 0, blue, red]
    assert batch.label_C.tolist() == [red, red, 0, 0, 0, 0, blue, 0, 0, red, 0]
    assert np.array_equal(batch.graded_score_B.numpy(), [NAN, 3.5, NAN, NAN], equal_nan=True)
    expected = [0.9, 0.8, *((i + 1) / 10 for i in drawn), NAN, NAN, NAN, 0.6, 0.7, 0.5, NAN]
    assert list(batch.teacher_scores) == ["scores"]
    assert batch.teacher_scores["scores"].dtype == torch.float64
    assert np.array_equal(batch.teacher_scores["scores"].numpy(), expected, equal_nan=True)
    assert batch.teacher_vectors is None


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_teachers_vectors(encoder: Encoder, symmetric: bool) -> None:
    """Of the raw texts, each on its side; those of a symmetric source are all queries."""
    source = Source(rows="rows.parquet", instruction="Find", symmetric=symmetric)
    plain = how(encoder, source)
    batch = collate(ROWS[1:3], range(2), range(2), 3, replace(plain, teacher=lengths))
    vectors = batch.teacher_vectors
    assert vectors is not None
    assert vectors.queries_NK.tolist() == lengths(["d", "f"], "query").tolist()
    side: Literal["query", "document"] = "query" if symmetric else "document"
    assert vectors.documents_CK.tolist() == lengths(["e", "n5", "g", "n6", "n7"], side).tolist()
    asked: list[tuple[str, list[str]]] = []

    def note(texts: Sequence[str], side: Literal["query", "document"], given: Sequence[str]) -> np.ndarray:
        asked.append((side, list(given)))
        return lengths(texts, side)

    rows = [replace(ROWS[1], instruction="Own"), ROWS[2]]
    collate(rows, range(2), range(2), 3, replace(plain, teacher=note))
    assert asked == [("query", ["Own", "Find"]), (side, ["Own", "Own", "Find", "Find", "Find"])]
    nothing = collate([], [], [], 3, replace(plain, teacher=lengths)).teacher_vectors
    assert nothing is not None
    assert nothing.queries_NK.shape == nothing.documents_CK.shape == (0, 2)


def gather_rows(folder: str) -> tuple[list[int], dict[str, np.ndarray]]:
    """Local positions, and all that is gathered, on this process."""
    here = current()
    encoder = tiny_encoder("lora", folder=folder)
    batch = make_batch(encoder, ROWS, here.rank, here.world, lengths)
    vectors = (torch.zeros(len(texts), 3) for texts in (batch.queries, batch.documents))
    g = gather_batch(batch, *gather_vectors(*vectors))
    return g.local_B.tolist(), fields_of(g)


def fields_of(g: Gathered) -> dict[str, np.ndarray]:
    names = ("query_index_A", "query_key_A", "label_A", "graded_score_A", "owner_C", "is_positive_C")
    assert g.teacher_vectors is not None
    tensors = {name: getattr(g, name) for name in (*names, "document_key_C", "label_C")}
    tensors |= {"scores": g.teacher_scores["scores"], "queries_AD": g.queries_AD}
    tensors |= {"teacher_A": g.teacher_vectors.queries_NK, "teacher_C": g.teacher_vectors.documents_CK}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def test_all_of_it_is_gathered() -> None:
    """Two processes know what one knows, in the same order."""
    local, expected = gather_rows(tiny_folder())
    assert local == [0, 1, 2, 3]
    for rank, (positions, found) in enumerate(run_on(2, gather_rows, tiny_folder())):
        assert positions == [2 * rank, 2 * rank + 1]
        for name, values in expected.items():
            assert found[name].dtype == values.dtype, name
            assert np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f"), name
