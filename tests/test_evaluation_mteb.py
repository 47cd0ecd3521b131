"""`measure` against mteb itself: the same texts and vectors through `mteb.evaluate` give the same figures."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from word_embedder import WordEmbedder

from embedtrain.evaluation.measure import measure
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Retrieval,
    Similarity,
)

mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

from mteb.abstasks.classification import AbsTaskClassification  # noqa: E402
from mteb.abstasks.clustering import AbsTaskClustering  # noqa: E402
from mteb.abstasks.pair_classification import AbsTaskPairClassification  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining  # noqa: E402
from mteb.models.abs_encoder import AbsEncoder  # noqa: E402
from mteb.models.model_meta import ModelMeta  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mteb", "ignore::FutureWarning")

WORDS = [
    "wing",
    "flow",
    "heat",
    "shock",
    "plate",
    "drag",
    "lift",
    "jet",
    "wall",
    "gas",
    "nose",
    "tail",
    "body",
]


def random_texts(num: int, seed: int, length: int = 5) -> tuple[str, ...]:
    """Short texts of few words, so that some are equal."""
    generator = random.Random(seed)
    return tuple(" ".join(generator.choices(WORDS, k=generator.randint(1, length))) for _ in range(num))


class Words(AbsEncoder):
    """The word embedder as a model of mteb."""

    mteb_model_meta = ModelMeta.create_empty({"name": "test/words", "revision": "1"})

    def __init__(self) -> None:
        self.embedder = WordEmbedder()

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        texts = [text for batch in inputs for text in batch["text"]]
        return self.embedder.encode(texts, side="")


def metadata(kind: str, main_score: str) -> TaskMetadata:
    """What mteb wants to know of a task."""
    return TaskMetadata(
        name="LocalTask",
        description="local",
        type=kind,
        category="t2t" if kind != "Classification" else "t2c",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        dataset={"path": "local/task", "revision": "1"},
    )


def mteb_scores(
    parent: type, kind: str, main_score: str, dataset: Any, **settings: Any
) -> Mapping[str, float]:
    """The scores of mteb's own evaluation of a dataset."""

    def load_data(self: Any, **_: Any) -> None:
        self.dataset, self.data_loaded = dataset, True

    body = {"metadata": metadata(kind, main_score), "load_data": load_data, **settings}
    task = type("LocalTask", (parent,), body)()
    result = mteb.evaluate(
        Words(),
        task,
        cache=None,
        co2_tracker=False,
        show_progress_bar=False,
        encode_kwargs={"batch_size": 32},
    )
    return result.task_results[0].scores["test"][0]


def check_equal(task: Any, scores: Mapping[str, float], names: Mapping[str, str], digits: int = 12) -> None:
    """Every metric of ours equals the one of mteb that `names` gives."""
    figures = measure(WordEmbedder(), task).metrics
    assert set(figures) == set(names)
    for ours, theirs in names.items():
        assert 0 < scores[theirs] < 1, "a figure of 0 or 1 shows nothing"
        assert round(figures[ours].value / 100, digits) == round(scores[theirs], digits), ours


def test_similarity() -> None:
    first, second = random_texts(80, 1), random_texts(80, 2)
    scores = tuple(random.Random(3).choices([0.0, 1.5, 2.0, 5.0], k=80))
    table = {"sentence1": first, "sentence2": second, "score": scores}
    dataset = {"test": datasets.Dataset.from_dict(table)}
    theirs = mteb_scores(AbsTaskSTS, "STS", "cosine_spearman", dataset)
    task = Similarity(name="sts", first=first, second=second, scores=scores)
    # the sign is free on random scores
    ours = measure(WordEmbedder(), task).metrics["spearman"].value / 100
    assert abs(theirs["cosine_spearman"]) > 0.001
    assert ours == pytest.approx(theirs["cosine_spearman"], rel=1e-12)


def test_pair_classification() -> None:
    first, second = random_texts(80, 1), random_texts(80, 2)
    labels = tuple(random.Random(4).choices([0, 1], k=80))
    table = {"sentence1": first, "sentence2": second, "labels": labels}
    dataset = {"test": datasets.Dataset.from_dict(table)}
    theirs = mteb_scores(AbsTaskPairClassification, "PairClassification", "max_ap", dataset)
    task = PairClassification(name="pairs", first=first, second=second, labels=labels)
    check_equal(task, theirs, {"max_ap": "max_ap", "cosine_ap": "cosine_ap"})


def test_bitext() -> None:
    first = random_texts(60, 1, length=8)
    second = tuple(" ".join([*text.split()[1:], "extra"]) for text in first)
    dataset = {"test": datasets.Dataset.from_dict({"sentence1": first, "sentence2": second})}
    theirs = mteb_scores(AbsTaskBitextMining, "BitextMining", "f1", dataset)
    task = Bitext(name="bitext", first=first, second=second)
    check_equal(task, theirs, {"f1": "f1", "accuracy": "accuracy"})


def test_classification() -> None:
    texts, test = random_texts(150, 1), random_texts(60, 2)
    labels = tuple(label_of(text) for text in texts)
    gold = tuple(label_of(text) for text in test)
    assert min(labels.count(label) for label in set(labels)) >= 8
    dataset = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"text": texts, "label": labels}),
        test=datasets.Dataset.from_dict({"text": test, "label": gold}),
    )
    theirs = mteb_scores(AbsTaskClassification, "Classification", "accuracy", dataset)
    task = Classification(
        name="classes", train_texts=texts, train_labels=labels, test_texts=test, test_labels=gold
    )
    check_equal(task, theirs, {"accuracy": "accuracy", "f1": "f1"})


def label_of(text: str) -> str:
    """A class that a word decides, so that it can be learned in part."""
    return "abc"[min(WORDS.index(word) for word in text.split()) % 3]


def test_clustering() -> None:
    texts = random_texts(120, 1)
    labels = tuple(label_of(text) for text in texts)
    dataset = {"test": datasets.Dataset.from_dict({"sentences": texts, "labels": labels})}
    settings = {"max_fraction_of_documents_to_embed": None}
    theirs = mteb_scores(AbsTaskClustering, "Clustering", "v_measure", dataset, **settings)
    check_equal(Clustering(name="groups", texts=texts, labels=labels), theirs, {"v_measure": "v_measure"})


def test_retrieval_with_grades_and_equal_documents() -> None:
    documents, queries = random_texts(300, 1), random_texts(30, 2)
    assert len(set(documents)) < len(documents), "equal documents are what tests ties"
    generator = random.Random(5)
    judged = {
        f"q{number}": {
            f"d{i}": generator.choice([0, 1, 2, 3])
            for i, text in enumerate(documents)
            if len(set(query.split()) & set(text.split())) >= 1 and generator.random() < 0.2
        }
        | {"absent": 1}
        for number, query in enumerate(queries)
    }
    task = Retrieval(
        name="search",
        query_ids=tuple(judged),
        queries=queries,
        document_ids=tuple(f"d{i}" for i in range(len(documents))),
        documents=documents,
        judged=judged,
    )
    check_retrieval(task)


def test_more_equal_documents_than_are_ranked() -> None:
    """Which 100 of 300 equal documents are found is settled by their ids alone."""
    names = tuple(f"d{i}" for i in range(300))
    task = Retrieval(
        name="equal",
        query_ids=("q",),
        queries=("wing",),
        document_ids=names,
        documents=("wing",) * 290 + ("wing flow",) * 10,
        judged={"q": dict.fromkeys(names[4::10], 1)},
    )
    check_retrieval(task)


def check_retrieval(task: Retrieval) -> None:
    """Our figures are mteb's."""
    split = {
        "queries": datasets.Dataset.from_dict({"id": list(task.query_ids), "text": task.queries}),
        "corpus": datasets.Dataset.from_dict({"id": list(task.document_ids), "text": task.documents}),
        "relevant_docs": task.judged,
        "top_ranked": None,
    }
    theirs = mteb_scores(AbsTaskRetrieval, "Retrieval", "ndcg_at_10", {"default": {"test": split}})
    names = {"ndcg@10": "ndcg_at_10", "recall@100": "recall_at_100", "mrr@10": "mrr_at_10"}
    check_equal(task, theirs, names, digits=5)  # mteb rounds to five digits
