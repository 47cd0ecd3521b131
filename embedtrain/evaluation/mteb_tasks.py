"""Tasks as those of mteb, a class a kind: `mteb.evaluate` runs on them as on its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from embedtrain.artifacts import hash_json
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Reranking,
    Retrieval,
    Similarity,
    Task,
)

SPLIT, SUBSET = "test", "default"
ENGLISH = ("eng-Latn",)
METRICS: Mapping[str, Mapping[str, str]] = {
    "Retrieval": {"ndcg@10": "ndcg_at_10", "recall@100": "recall_at_100", "mrr@10": "mrr_at_10"},
    "Reranking": {"map@1000": "map_at_1000", "mrr@10": "mrr_at_10", "ndcg@10": "ndcg_at_10"},
    "STS": {"spearman": "cosine_spearman"},
    "PairClassification": {"max_ap": "max_ap", "cosine_ap": "cosine_ap"},
    "BitextMining": {"f1": "f1", "accuracy": "accuracy"},
    "Classification": {"accuracy": "accuracy", "f1": "f1"},
    "Clustering": {"v_measure": "v_measure"},
}
"""By mteb's type of task, its names for our metrics."""


class Local:
    """What all of them have in common: the data are there."""

    def __init__(self, task: Task) -> None:
        """Keep the task; its texts are brought into mteb's form when they are asked for."""
        self.local = task
        super().__init__()

    def load_data(self, *_: Any, **__: Any) -> None:
        """Bring the texts into mteb's form."""
        self.dataset, self.data_loaded = DATASETS[type(self.local)](self.local), True


class LocalRetrieval(Local, AbsTaskRetrieval):
    """Retrieval, and reranking, which mteb tells from it by its type and `top_ranked`."""


class LocalSTS(Local, AbsTaskSTS):
    """Pairs with scores."""

    def load_data(self, *_: Any, **__: Any) -> None:
        """With the range of the scores, from which mteb takes its own."""
        super().load_data()
        assert isinstance(self.local, Similarity)
        self.min_score, self.max_score = min(self.local.scores), max(self.local.scores)


class LocalPairClassification(Local, AbsTaskPairClassification):
    """Pairs labelled 0 or 1."""


class LocalBitext(Local, AbsTaskBitextMining):
    """Sentences and translations."""


class LocalClassification(Local, AbsTaskClassification):
    """Labelled texts to learn from and to test on."""


class LocalClustering(Local, AbsTaskClustering):
    """Labelled texts; all of them are encoded."""

    max_fraction_of_documents_to_embed = None


CLASSES: Mapping[type, type] = {
    Retrieval: LocalRetrieval,
    Reranking: LocalRetrieval,
    Similarity: LocalSTS,
    PairClassification: LocalPairClassification,
    Bitext: LocalBitext,
    Classification: LocalClassification,
    Clustering: LocalClustering,
}


def as_mteb(task: Task, languages: Sequence[str] = ENGLISH) -> AbsTask:
    """The task as one of mteb's. `languages` are codes such as eng-Latn; no score depends on them."""
    kind = CLASSES[type(task)]
    return type(kind.__name__, (kind,), {"metadata": describe(task, languages)})(task)


def describe(task: Task, languages: Sequence[str]) -> TaskMetadata:
    """What mteb wants to know of a task; its revision is the hash of the data."""
    return TaskMetadata(
        name=task.name,
        description=f"{task.kind} on local data",
        type=task.mteb_type,
        category="t2c" if isinstance(task, Classification | Clustering) else "t2t",
        modalities=["text"],
        eval_splits=[SPLIT],
        eval_langs=list(languages),
        main_score=METRICS[task.mteb_type][task.primary],
        dataset={"path": f"local/{task.name}", "revision": revision(task)},
        is_public=False,
    )


def revision(task: Task) -> str:
    """Other data have another."""
    return hash_json([task.kind, asdict(task)])[:16]


def searched(task: Retrieval | Reranking) -> dict[str, Any]:
    """Queries, documents and judgments, and what is listed for each query."""
    listed = (
        {name: list(ids) for name, ids in task.candidates.items()} if isinstance(task, Reranking) else None
    )
    split = {
        "queries": Dataset.from_dict({"id": list(task.query_ids), "text": list(task.queries)}),
        "corpus": Dataset.from_dict({"id": list(task.document_ids), "text": list(task.documents)}),
        "relevant_docs": {name: dict(task.judged[name]) for name in task.query_ids},
        "top_ranked": listed,
    }
    return {SUBSET: {SPLIT: split}}


def table(**columns: Sequence[Any]) -> Dataset:
    """A data set of these columns."""
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def classes(task: Classification) -> DatasetDict:
    """Texts to learn from and to test on."""
    train = table(text=task.train_texts, label=task.train_labels)
    return DatasetDict({"train": train, SPLIT: table(text=task.test_texts, label=task.test_labels)})


DATASETS: Mapping[type, Callable[[Any], Any]] = {
    Retrieval: searched,
    Reranking: searched,
    Similarity: lambda t: {SPLIT: table(sentence1=t.first, sentence2=t.second, score=t.scores)},
    PairClassification: lambda t: {SPLIT: table(sentence1=t.first, sentence2=t.second, labels=t.labels)},
    Bitext: lambda t: {SPLIT: table(sentence1=t.first, sentence2=t.second)},
    Classification: classes,
    Clustering: lambda t: {SPLIT: table(sentences=t.texts, labels=t.labels)},
}
