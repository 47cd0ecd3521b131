"""Pairs: queries by one model and documents by another, beside each alone, and what is kept."""

import math

import numpy as np
import pytest
from asked_tasks import retrieval
from word_embedder import WordEmbedder

from embedtrain.config.errors import UserError
from embedtrain.config.stages import Pair
from embedtrain.evaluation.intervals import draw_weights
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.pairs import (
    Paired,
    check_pair,
    collect_pairs,
    measure_pair,
    pair_sections,
    pair_tables,
)
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.tasks import Retrieval, Similarity
from embedtrain.show.page import Grid, Prose, render_page
from embedtrain.show.tables import table_text

PAIR = Pair(queries="leaf", documents="teacher")


class Noisy(WordEmbedder):
    """As the teacher, but for a share of noise: what a student is."""

    def vector(self, text: str) -> np.ndarray:
        noise = np.random.default_rng((7, len(text), *text.encode())).normal(size=self.dim)
        return super().vector(text) + 1.5 * noise


@pytest.fixture
def models() -> tuple[Remembering, Remembering]:
    leaf, teacher = Noisy(name="leaf"), WordEmbedder(name="teacher")
    return Remembering("leaf", lambda: leaf), Remembering("teacher", lambda: teacher)


def three(models: tuple[Remembering, Remembering], task: Retrieval) -> dict[tuple[str, str], Result]:
    """All three results of one task."""
    leaf, teacher = models
    found = [measure(leaf, task), measure_pair(leaf, teacher, task), measure(teacher, task)]
    return {(result.model, task.name): result for result in found}


def slow_ndcg(leaf: Remembering, teacher: Remembering, task: Retrieval) -> list[float]:
    """Of every query, in loops: its own document's place among all, by dot products of unit vectors."""
    values = []
    for number, query in enumerate(task.queries):
        asked = [float(x) for x in leaf.embedder.encode([query], side="query", normalize=True)[0]]
        scores = []
        for document in task.documents:
            given = teacher.embedder.encode([document], side="document", normalize=True)[0]
            scores.append(sum(a * float(b) for a, b in zip(asked, given, strict=True)))
        place = sum(score > scores[number] for score in scores)
        values.append(1 / math.log2(place + 2) if place < 10 else 0.0)
    return values


# figures


def test_a_pairs_figure_is_that_of_loops(models: tuple[Remembering, Remembering]) -> None:
    task = retrieval()
    results = three(models, task)
    for name, queries, documents in (
        ("leaf", *models[:1], *models[:1]),
        ("leaf → teacher", *models),
        ("teacher", *models[1:], *models[1:]),
    ):
        slow = 100 * float(np.mean(slow_ndcg(queries, documents, task)))
        assert results[name, "faq"].figure.value == pytest.approx(slow, abs=1e-4)
    values = [results[name, "faq"].figure.value for name in ("leaf", "leaf → teacher", "teacher")]
    assert len(set(values)) == 3  # the premise: the three ways differ


def test_kept_draws_the_same_queries_for_both(models: tuple[Remembering, Remembering]) -> None:
    task = retrieval()
    (found,) = collect_pairs([PAIR], [task], three(models, task))
    whole = slow_ndcg(models[1], models[1], task)
    ways = (slow_ndcg(models[0], models[0], task), slow_ndcg(*models, task))
    for values, (_, _, _, kept) in zip(ways, found.rows, strict=False):
        assert kept is not None
        assert kept.value == pytest.approx(100 * sum(values) / sum(whole), abs=1e-4)
        drawn = []
        for weights_RN in draw_weights(len(values)):
            for weights_N in weights_RN:
                above = sum(w * v for w, v in zip(weights_N, values, strict=True))
                drawn.append(100 * above / sum(w * v for w, v in zip(weights_N, whole, strict=True)))
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert (kept.low, kept.high) == pytest.approx((low, high), abs=1e-3)
        assert kept.low < kept.value < kept.high
    assert found.rows[2][3] is None


def test_nothing_is_encoded_twice(models: tuple[Remembering, Remembering]) -> None:
    task = retrieval()
    three(models, task)
    for model in models:
        texts = [(side, text) for side, called in model.embedder.calls for text in called]
        assert len(texts) == len(set(texts)) == len(task.queries) + len(task.documents)


def test_a_model_alone_is_a_pair_with_itself(models: tuple[Remembering, Remembering]) -> None:
    task = retrieval()
    alone = measure(models[1], task)
    twice = measure_pair(models[1], models[1], task)
    assert twice.metrics == alone.metrics


def test_a_text_without_a_side_belongs_to_neither(models: tuple[Remembering, Remembering]) -> None:
    with pytest.raises(ValueError, match="leaf → teacher: a pair encodes queries and documents, found side"):
        Paired(*models).encode(["a"], side="")
    similar = Similarity("sts", ("a b", "c d"), ("a c", "c d"), (0.0, 1.0))
    assert collect_pairs([PAIR], [similar], {}) == []


def test_models_of_unlike_dims_are_refused_by_name() -> None:
    narrow = Remembering("leaf", lambda: WordEmbedder(dim=8))
    wide = Remembering("teacher", lambda: WordEmbedder(dim=24))
    with pytest.raises(
        UserError,
        match=r"^the pair 'leaf' for queries, 'teacher' for documents: vectors of 8 and of 24 dims cannot be "
        r"compared$",
    ):
        check_pair(narrow, wide)


# tables


def result(model: str, task: str, value: float, share: float) -> Result:
    """A result whose draws are `share` of 40, 50 and 60."""
    figure = Figure(value, value - 2, value + 2, tuple(share * x for x in (40.0, 50.0, 60.0)))
    return Result(model, task, "retrieval", "ndcg@10", {"ndcg@10": figure}, {"queries": 9}, None, 1.0)


def made_up(*tasks: str) -> dict[tuple[str, str], Result]:
    """A student that keeps 80 % alone and 90 % beside its teacher."""
    named = {"leaf": 40.0, "leaf → teacher": 45.0, "teacher": 50.0}
    found = [result(name, task, value, value / 50) for task in tasks for name, value in named.items()]
    return {(r.model, r.task): r for r in found}


def test_tables_set_the_three_ways_beside_each_other() -> None:
    tasks = [retrieval(name) for name in ("faq", "titles", "news")]
    found = collect_pairs([PAIR], tasks, made_up("faq", "titles", "news"))
    first, second = pair_tables(found, in_domain=["titles"])
    assert first.title == "Asymmetric search: queries by leaf, documents by teacher"
    assert first.columns == [
        *("queries by", "documents by"),
        *("faq nDCG@10", "kept, %", "titles nDCG@10", "kept, %"),
    ]
    assert first.rows == [
        ["leaf", "leaf", "40.0 ±2.0", "80.0 ±0.0", "40.0 ±2.0", "80.0 ±0.0"],
        ["leaf", "teacher", "45.0 ±2.0", "90.0 ±0.0", "45.0 ±2.0", "90.0 ±0.0"],
        ["teacher", "teacher", "50.0 ±2.0", "—", "50.0 ±2.0", "—"],
    ]
    assert first.note.endswith("faq: 9 queries; titles: 9 queries. In-domain: titles.")
    assert second.columns[2:] == ["news nDCG@10", "kept, %"]
    assert second.note.endswith("news: 9 queries.")
    for line in table_text(first.title, first.columns, first.rows, first.note).splitlines():
        assert len(line) <= 100


def test_the_page_says_in_words_what_is_kept() -> None:
    found = collect_pairs([PAIR], [retrieval("faq"), retrieval("news")], made_up("faq", "news"))
    (section,) = pair_sections(found)
    prose, grid, said = section.blocks
    assert isinstance(prose, Prose)
    assert isinstance(grid, Grid)
    assert isinstance(said, Prose)
    assert said.text == (
        "With leaf for queries and teacher for documents, 90.0 % (90.0–90.0) of what teacher finds alone is "
        "kept, the mean of 2 tasks; with leaf for both, 80.0 % (80.0–80.0)."
    )
    page = render_page("x", [section])
    assert page.count("<b>") == 0
    assert "90.0–90.0" in page
    assert pair_sections([]) == []


def test_a_teacher_that_finds_nothing_keeps_no_figure() -> None:
    results = made_up("faq")
    results["teacher", "faq"] = result("teacher", "faq", 0.0, 0.0)
    found = collect_pairs([PAIR], [retrieval("faq")], results)
    assert found[0].to_json()["kept"] == {"student": None, "pair": None}
    assert [row[3] for row in pair_tables(found)[0].rows] == ["—", "—", "—"]
    assert "teacher alone finds nothing on one of the tasks" in pair_sections(found)[0].blocks[2].text
