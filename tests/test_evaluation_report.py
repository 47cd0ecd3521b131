"""Tables, report.json and the page: every figure there, the best marked, groups apart."""

import json
import math
import re

import numpy as np
import pytest
from word_embedder import WordEmbedder

from embedtrain.config.errors import UserError
from embedtrain.evaluation.groups import group_tasks, terminal_tables
from embedtrain.evaluation.measure import Remembering, bm25_result, measure
from embedtrain.evaluation.neighbours import embedding_map, nearest_examples, plane
from embedtrain.evaluation.report import (
    map_section,
    neighbour_section,
    read_results,
    report_json,
    report_page,
)
from embedtrain.evaluation.results import Figure, Result
from embedtrain.evaluation.tasks import Bitext, Classification, Clustering, Retrieval, Task
from embedtrain.show.tables import table_text

TOPICS = {
    "cats": ["the cat sleeps", "a cat eats fish", "cats and kittens purr"],
    "cars": ["the car drives", "a fast car brakes", "cars need fuel"],
}


def result(model: str, task: str, value: float, sizes: dict[str, int] | None = None) -> Result:
    """A result with one figure."""
    figures = {"ndcg@10": Figure(value, value - 2, value + 3)}
    return Result(model, task, "retrieval", "ndcg@10", figures, sizes or {"queries": 20}, None, 1.5)


RESULTS = [
    result("BM25", "faq", 61.12),
    result("base", "faq", 30.0),
    result("ours", "faq", 61.08),
    result("ours", "titles", 50.0),
    result("base", "titles", 40.0),
]


def search_task() -> Retrieval:
    """Every text is found by its first two words."""
    documents = [text for texts in TOPICS.values() for text in texts]
    queries = [" ".join(text.split()[:2]) for text in documents]
    return Retrieval(
        name="animals",
        query_ids=tuple(f"q{i}" for i in range(len(queries))),
        queries=tuple(queries),
        document_ids=tuple(f"d{i}" for i in range(len(documents))),
        documents=tuple(documents),
        judged={f"q{i}": {f"d{i}": 1} for i in range(len(queries))},
    )


def topic_task() -> Clustering:
    """The texts by topic."""
    pairs = [(text, topic) for topic, texts in TOPICS.items() for text in texts]
    return Clustering("topics", tuple(text for text, _ in pairs), tuple(topic for _, topic in pairs))


# tables


def test_tables_keep_groups_apart_and_mark_the_best() -> None:
    held_out, in_domain = terminal_tables(RESULTS, in_domain={"titles"})
    assert held_out.title == "Held-out tasks"
    assert held_out.columns == ["model", "faq nDCG@10"]
    # 61.12 and 61.08 read the same, so both are best
    assert held_out.rows == [["BM25", "61.1 ±2.5 *"], ["base", "30.0 ±2.5"], ["ours", "61.1 ±2.5 *"]]
    assert in_domain.rows == [["ours", "50.0 ±2.5 *"], ["base", "40.0 ±2.5"]]
    assert held_out.note == "±: half of the 95 % interval. *: best. faq: 20 queries."


def test_table_prints_within_100_columns_with_figures_on_the_right() -> None:
    results = [result(m, f"task-{t}", t) for m in ("all-MiniLM-L6-v2", "ours") for t in range(12)]
    tables = terminal_tables(results)
    assert [len(table.columns) for table in tables] == [6, 6, 3]
    for table in tables:
        text = table_text(table.title, table.columns, table.rows, table.note)
        assert max(len(line) for line in text.splitlines()) <= 100
        assert all(table.rows[0][-1] in text for table in [table])


def test_model_without_a_figure_has_a_dash() -> None:
    (table,) = terminal_tables(RESULTS)
    assert table.rows[0] == ["BM25", "61.1 ±2.5 *", "—"]


def test_a_subset_is_named_as_one() -> None:
    whole = {"queries": 225, "documents": 1400}
    cut = Result(
        "m", "t", "retrieval", "ndcg@10", RESULTS[0].metrics, {"queries": 40, "documents": 1400}, whole, 1
    )
    (group,) = group_tasks([cut])
    assert group.columns[0].sizes == "40 of 225 queries, 1,400 documents"


def test_figures_on_unlike_texts_may_not_share_a_column() -> None:
    results = [result("a", "faq", 1.0), result("b", "faq", 2.0, {"queries": 7})]
    with pytest.raises(ValueError, match="task 'faq': a was measured on 20 queries, b on 7 queries"):
        group_tasks(results)


def test_one_model_alone_is_not_the_best() -> None:
    (table,) = terminal_tables([result("a", "faq", 1.0)])
    assert table.rows == [["a", "1.0 ±2.5"]]


# report.json


def test_report_json_reads_back() -> None:
    saved = json.loads(json.dumps(report_json(RESULTS, {"titles", "absent"}, run="quickstart")))
    assert (saved["run"], saved["in_domain"]) == ("quickstart", ["titles"])
    assert read_results(saved) == RESULTS


def test_report_json_of_another_format() -> None:
    with pytest.raises(UserError, match=r"report.json: format 9, expected 2: measure again"):
        read_results({"format": 9, "results": []})


# the page


def test_page_shows_all_and_loads_nothing() -> None:
    before, after = WordEmbedder(seed=1, name="base <1>"), WordEmbedder(seed=2, name="ours")
    sections = [
        neighbour_section(nearest_examples(before, after, search_task())),
        map_section([embedding_map(model, topic_task()) for model in (before, after)]),
    ]
    page = report_page(RESULTS, {"titles"}, sections=sections, title="Quickstart")
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        "Held-out tasks",
        "In-domain tasks",
        "Nearest neighbours",
        "Map of the embeddings",
        "How it was measured",
    ]
    assert "59.1–64.1" in page
    assert "base &lt;1&gt;" in page
    assert "base <1>" not in page
    assert page.count("<svg") == 2
    assert "6 texts on the two principal directions" in page
    assert not re.search(r'(src|href)="(http|//)', page.replace("http://www.w3.org", ""))


def test_page_without_extras() -> None:
    page = report_page(RESULTS)
    assert "Nearest neighbours" not in page
    assert "<svg" not in page


# neighbours and maps


@pytest.mark.parametrize("task", [search_task(), topic_task()], ids=lambda task: task.kind)
def test_neighbours_are_those_of_a_slow_search(task: Task) -> None:
    models = [WordEmbedder(seed=1, name="before"), WordEmbedder(seed=2, name="after")]
    examples = nearest_examples(*models, task, num=4, seed=3)
    documents = task.documents if isinstance(task, Retrieval) else task.texts
    assert len(examples) == 4
    for example in examples:
        for model, (name, found) in zip(models, example.found, strict=True):
            others = [text for text in documents if text != example.query]
            query = model.encode([example.query], side="")[0]
            cosines = {text: float(query @ model.encode([text], side="")[0]) for text in others}
            slow = sorted(cosines, key=cosines.__getitem__, reverse=True)[:3]
            assert name == model.name
            assert [match.text for match in found] == slow
            assert [match.score for match in found] == pytest.approx(
                [cosines[text] for text in slow], abs=1e-6
            )


def test_right_answers_are_marked() -> None:
    same = WordEmbedder(name="a"), WordEmbedder(name="b")
    for example in nearest_examples(*same, search_task()):
        for match in example.found[0][1]:
            assert match.right == match.text.startswith(example.query)
    topic_of = {text: topic for topic, texts in TOPICS.items() for text in texts}
    matches = [
        (topic_of[example.query] == topic_of[match.text], match.right)
        for example in nearest_examples(*same, topic_task())
        for match in example.found[0][1]
    ]
    assert all(expected == right for expected, right in matches)
    assert {right for _, right in matches} == {True, False}
    translations = Bitext("en-de", ("yes sir", "no sir"), ("yes herr", "no herr"))
    for example in nearest_examples(*same, translations):
        assert [match.right for match in example.found[0][1]] == [True, False]


def test_models_see_queries_and_documents_as_such() -> None:
    model = WordEmbedder()
    measure(model, search_task())
    assert [side for side, _ in model.calls] == ["query", "document"]
    measure(model, topic_task())
    assert model.calls[-1][0] == ""


def test_a_text_is_encoded_once() -> None:
    model = WordEmbedder()
    measure(model, Bitext("b", ("yes", "no", "yes"), ("ja", "no", "ja")))
    assert [sorted(texts) for _, texts in model.calls] == [["ja", "no", "yes"]]


def test_remembering_encodes_nothing_twice() -> None:
    model = WordEmbedder()
    kept = Remembering(model.name, lambda: model)
    first = measure(kept, search_task())
    num_calls = len(model.calls)
    nearest_examples(kept, kept, search_task())
    assert measure(kept, search_task()).metrics == first.metrics == measure(model, search_task()).metrics
    assert len(model.calls) == num_calls + 2, "only the last measurement, of the bare model, encoded again"
    kept.encode(["the cat sleeps"], side="")
    assert model.calls[-1] == ("", ["the cat sleeps"]), "another side is another vector"


def test_plane_keeps_the_largest_spread() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(50, 6)) * [5, 0.1, 3, 0.1, 0.1, 0.1]
    points = plane(vectors)
    assert points.var(axis=0).sum() == pytest.approx(vectors[:, [0, 2]].var(axis=0).sum(), rel=0.02)
    assert plane(vectors[::-1])[::-1] == pytest.approx(points)


def test_map_of_many_labels_keeps_the_frequent_ones() -> None:
    labels = tuple(label for label in range(12) for _ in range(label + 1))
    texts = tuple(f"text {i} of {label}" for i, label in enumerate(labels))
    part = embedding_map(WordEmbedder(), Classification("c", (), (), texts, labels), max_points=60)
    assert len(part.points) == len(part.labels) == 60
    assert set(part.labels) <= {"5", "6", "7", "8", "9", "10", "11", "other"}


def test_bm25_finds_shared_words() -> None:
    found = bm25_result(search_task())
    # without stop words "a cat" asks as "the cat" does, whose document is shorter and so ranks first
    assert found.model == "BM25"
    assert found.figure.value == pytest.approx(100 * (5 + 1 / math.log2(3)) / 6)
