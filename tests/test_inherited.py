"""Vectors in fewer dims and bits: against loops and sentence-transformers, on every kind of task."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import spearmanr
from sentence_transformers.util import quantize_embeddings, truncate_embeddings
from word_embedder import WordEmbedder

from embedtrain.config.errors import UserError
from embedtrain.evaluation import metrics
from embedtrain.evaluation.inherited import (
    Binary,
    Buckets,
    Cut,
    Form,
    Int8,
    check_forms,
    forms_of,
    measure_in,
    stored_texts,
)
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Retrieval,
    Similarity,
    Task,
)
from embedtrain.search import search, search_signs, signs

FORMS = forms_of((5, 11), ("int8", "binary"))
WORDS = [f"word{n}" for n in range(40)]


def texts(num: int, seed: int, words: int = 4) -> tuple[str, ...]:
    generator = np.random.default_rng(seed)
    return tuple(" ".join(generator.choice(WORDS, words)) for _ in range(num))


LABELS = tuple(i % 3 for i in range(40))
DOCUMENTS = tuple(dict.fromkeys(texts(90, 1)))
QUERIES = tuple(" ".join(text.split()[:2]) for text in DOCUMENTS[:30])
TASKS: list[Task] = [
    Retrieval(
        "found", tuple(f"q{i}" for i in range(30)), QUERIES, tuple(f"d{i:02}" for i in range(len(DOCUMENTS))),
        DOCUMENTS, {f"q{i}": {f"d{i:02}": 2, f"d{i + 30}": 1} for i in range(30)},
    ),
    Similarity("alike", texts(40, 2), texts(40, 3), scores=tuple(float(i % 6) for i in range(40))),
    PairClassification("same", texts(40, 4), texts(40, 5), labels=tuple(i % 3 // 2 for i in range(40))),
    Bitext("said", texts(25, 6), texts(25, 7)),
    Classification("sorted", texts(30, 8), LABELS[:30], texts(20, 9), LABELS[:20]),
    Clustering("grouped", texts(40, 10), LABELS),
]  # fmt: skip


def unit_vectors(num: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_cosine(first: Sequence[float], second: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    return dot / (sum(a * a for a in first) * sum(b * b for b in second)) ** 0.5


def slow_int8(vector: Sequence[float], stored: Sequence[Sequence[float]]) -> list[float]:
    values = []
    for dim, value in enumerate(vector):
        least, greatest = min(s[dim] for s in stored), max(s[dim] for s in stored)
        step = (greatest - least) / 255
        bucket = min(max((value - least) // step, 0), 255) if step else 0
        values.append(least + (bucket + 0.5) * step)
    return values


def slow_distance(first: Sequence[float], second: Sequence[float]) -> int:
    return sum((a > 0) != (b > 0) for a, b in zip(first, second, strict=True))


def slow_score(form: Form, first: Sequence[float], second: Sequence[float], stored: list) -> float:
    """How near two full vectors are in a form."""
    match form:
        case Cut(dims):
            return slow_cosine(first[:dims], second[:dims])
        case Int8():
            return slow_cosine(slow_int8(first, stored), slow_int8(second, stored))
        case _:
            return -slow_distance(first, second)


# the forms


def test_a_cut_is_that_of_sentence_transformers() -> None:
    vectors = unit_vectors(20, 12)
    cut = Cut(7).convert(vectors, lambda: vectors)
    theirs = truncate_embeddings(vectors, 7)
    np.testing.assert_allclose(cut, theirs / np.linalg.norm(theirs, axis=1, keepdims=True), rtol=1e-6)
    assert cut.dtype == np.float32
    assert Cut(2).convert(np.array([[0.0, 0, 1]], np.float32), lambda: vectors).tolist() == [[0, 0]]


def test_int8_codes_are_those_of_sentence_transformers() -> None:
    stored, asked = unit_vectors(150, 16), 3 * unit_vectors(40, 16, seed=1)  # some outside the range
    stored[:, 3] = 0.25  # a dim without a range
    codes = Buckets.of(stored).codes(asked)
    assert codes.dtype == np.int8
    assert {-128, 127} <= set(codes.ravel().tolist())
    assert (codes == quantize_embeddings(asked, "int8", calibration_embeddings=stored)).all()


def test_int8_values_are_those_of_loops() -> None:
    stored, asked = unit_vectors(50, 8), unit_vectors(20, 8, seed=1)
    stored[:, 2] = 0.25
    buckets = Buckets.of(stored)
    values = buckets.values(buckets.codes(asked))
    slow = [slow_int8(vector, stored.tolist()) for vector in asked.tolist()]
    step = (stored.max(axis=0) - stored.min(axis=0)) / 255
    off = np.abs(values - slow) / np.where(step == 0, 1, step)
    assert (off < 1e-3).mean() > 0.99  # a value on the edge of a bucket may round into the next
    assert off.max() < 1.001
    assert (values[:, 2] == np.float32(0.25)).all()
    inside = np.abs(values - np.clip(asked, stored.min(axis=0), stored.max(axis=0)))[:, step > 0]
    assert (inside <= 0.501 * step[step > 0]).all()  # the middle of a bucket is half a step away at most


def test_signs_are_those_of_sentence_transformers_and_cosines_their_distances() -> None:
    vectors = unit_vectors(30, 21)
    vectors[0, :3] = [0.0, -0.0, 1e-30]
    kept = Binary().convert(vectors, lambda: vectors)
    assert (np.packbits(kept > 0, axis=1) == quantize_embeddings(vectors, "ubinary")).all()
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-5)
    products = (kept[:, None] * kept[None]).sum(axis=-1)
    by_distance: dict[int, set[float]] = {}
    for i, j in np.ndindex(30, 30):
        by_distance.setdefault(slow_distance(vectors[i], vectors[j]), set()).add(float(products[i, j]))
    assert all(len(values) == 1 for values in by_distance.values()), "equal distances, equal products"
    assert {h: round(v.pop(), 4) for h, v in by_distance.items()} == pytest.approx(
        {h: 1 - 2 * h / 21 for h in by_distance}, abs=1e-4
    )


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_the_search_of_signs_is_that_of_loops(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "DOCUMENT_CHUNK", chunk)
    monkeypatch.setattr(signs, "QUERY_CHUNK", 4)
    queries, documents = unit_vectors(9, 6), unit_vectors(50, 6, seed=1)  # 6 bits: many equal distances
    for k in (1, 20, 60):
        ids, scores = search_signs(queries, documents, k)
        for query, found, near in zip(queries, ids.tolist(), scores.tolist(), strict=True):
            distances = [slow_distance(query, document) for document in documents]
            slow = sorted(range(50), key=lambda i: (distances[i], i))[:k]
            assert found == slow
            assert near == [(6 - 2 * distances[i]) / 6 for i in slow]
    assert search_signs(queries[:0], documents, 3)[0].shape == (0, 3)


def test_cosines_of_equal_signs_are_equal() -> None:
    """float32 would round equal distances apart, by the order of their bits; ranks would follow."""
    vectors = Binary().convert(unit_vectors(400, 21), lambda: np.zeros(0))
    cosines = metrics.paired_cosines(vectors[:200], vectors[200:])
    distances = [slow_distance(a, b) for a, b in zip(vectors[:200], vectors[200:], strict=True)]
    assert len(set(cosines.tolist())) == len(set(distances))
    ids, _ = search(vectors[:5], vectors, 400)
    for row, found in enumerate(ids.tolist()):
        near = [slow_distance(vectors[row], vectors[i]) for i in found]
        assert found == sorted(found, key=lambda i: (near[found.index(i)], i))


# tasks


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_retrieval_is_that_of_loops(form: Form) -> None:
    task, model = TASKS[0], WordEmbedder(dim=16)
    assert isinstance(task, Retrieval)
    documents = model.encode(task.documents, side="document").astype(float).tolist()
    ranked = []
    for query in model.encode(task.queries, side="query").astype(float).tolist():
        scores = [np.float32(slow_score(form, query, document, documents)) for document in documents]
        pairs = sorted(zip(scores, task.document_ids, strict=True), reverse=True)
        ranked.append([name for _, name in pairs][:100])
    slow = metrics.retrieval_values(ranked, [task.judged[name] for name in task.query_ids])
    result = measure_in(form, model, task)
    for name, values in slow.items():
        assert result.metrics[name].value == pytest.approx(100 * values.mean(), abs=1e-9)
    assert 20 < result.figure.value < 99


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_similarity_is_that_of_loops(form: Form) -> None:
    task, model = TASKS[1], WordEmbedder(dim=16)
    assert isinstance(task, Similarity)
    vectors = model.encode(task.first + task.second, side="").astype(float).tolist()
    scores = [slow_score(form, vectors[i], vectors[40 + i], vectors) for i in range(40)]
    slow = 100 * spearmanr(task.scores, np.float32(scores))[0]
    assert measure_in(form, model, task).figure.value == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_task_is_measured_in_every_form(task: Task, form: Form) -> None:
    """By the metrics of the task on an embedder that gives those vectors; the full model's differ."""
    model = WordEmbedder(dim=16)
    stored = model.encode(*stored_texts(task)[:1], side="")

    class Given(WordEmbedder):
        def encode(self, texts: Sequence[str], *, side: str, normalize: bool = True) -> np.ndarray:
            return form.convert(super().encode(texts, side=side), lambda: stored)

    result, full = measure_in(form, model, task), measure(model, task)
    expected = measure(Given(dim=16), task, find=form.find)
    assert result.metrics == expected.metrics
    assert result.figure.draws == expected.figure.draws
    assert (result.form, result.model, full.form) == (form.name, "words", "")
    assert (full.num_bytes, result.num_bytes) == (64, form.num_bytes(16))


def test_each_form_is_its_own() -> None:
    results = {form.name: measure_in(form, WordEmbedder(dim=16), TASKS[0]) for form in FORMS}
    assert list(results) == ["11 dims", "5 dims", "int8", "binary"]
    assert [result.num_bytes for result in results.values()] == [44, 20, 16, 2]
    assert len({result.figure for result in results.values()}) == 4


def test_int8_is_calibrated_on_what_an_index_holds() -> None:
    found, *_, sorted_, grouped = TASKS
    assert isinstance(found, Retrieval)
    assert isinstance(sorted_, Classification)
    assert stored_texts(found) == (found.documents, "document")
    assert set(stored_texts(sorted_)[0]) <= set(sorted_.train_texts)
    assert stored_texts(grouped) == (grouped.texts, "")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_nothing_is_encoded_twice(task: Task) -> None:
    model = WordEmbedder(dim=16)
    kept = Remembering(model.name, lambda: model)
    measure(kept, task)
    num_calls = len(model.calls)
    for form in FORMS:
        measure_in(form, kept, task)
    assert len(model.calls) == num_calls


def test_the_prompts_of_a_task_are_kept() -> None:
    class Prompted(WordEmbedder):
        def for_task(self, task: str) -> WordEmbedder:
            return WordEmbedder(self.dim, seed=9, name=f"{self.name} for {task}")

    result = measure_in(Int8(), Prompted(dim=16), TASKS[0])
    assert result.model == "words for found"
    assert result.metrics == measure_in(Int8(), WordEmbedder(dim=16, seed=9), TASKS[0]).metrics


# which forms


def test_forms_are_ordered_and_named_once() -> None:
    forms = forms_of((64, 1024, 64), ("binary", "int8", "binary"))
    assert [form.name for form in forms] == ["1,024 dims", "64 dims", "binary", "int8"]
    assert forms[0].fits(1025)
    assert not forms[0].fits(1024)


def test_a_cut_that_fits_no_model_is_a_users_mistake() -> None:
    dims = {"leaf": 384, "teacher": 768}
    check_forms(forms_of((256, 512), ("int8",)), dims)
    with pytest.raises(UserError) as error:
        check_forms(forms_of((256, 768), ()), dims)
    assert str(error.value) == (
        "truncation to 768 dims: no model has more dims to cut (dims: leaf 384, teacher 768)"
    )
