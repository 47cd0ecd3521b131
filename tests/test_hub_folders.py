"""Retrieval folders as they lie on the hub: parquet files in corpus/, queries/ and qrels/, in several forms.

Fixtures have the columns that mteb 2.26 (abstasks/retrieval_dataset_loaders.py) and sentence-transformers 6.2
(sentence_transformer/evaluation/nano_beir.py) read, and the file names of the cards of such sets.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exports import PREFIXED, change_json, tiny_encoder

from embedtrain.config.errors import UserError
from embedtrain.evaluation.measure import prompted
from embedtrain.evaluation.readers import find_tasks
from embedtrain.evaluation.tasks import Reranking, Retrieval
from embedtrain.model.export import export_encoder
from embedtrain.model.st import open_sentence_transformer

Rows = list[dict[str, Any]]
CORPUS: Rows = [{"_id": "d1", "text": "wings lift"}, {"_id": "d2", "text": "tails steer"}]
QUERIES: Rows = [{"_id": "q1", "text": "what lifts"}, {"_id": "q2", "text": "what steers"}]
QRELS: Rows = [{"query-id": "q1", "corpus-id": "d1"}, {"query-id": "q2", "corpus-id": "d2"}]


def write(path: Path, rows: Rows) -> None:
    """A parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_hub(folder: Path, split: str = "train", **parts: Rows) -> Path:
    """The three parts, or those given instead."""
    for part, rows in ({"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS} | parts).items():
        write(folder / part / f"{split}-00000-of-00001.parquet", rows)
    return folder


def test_a_folder_of_nanobeir(tmp_path: Path) -> None:
    """A repository a task: split train, no titles and no scores."""
    write_hub(tmp_path / "NanoNFCorpus")
    write_hub(tmp_path / "NanoSciFact")
    tasks = find_tasks(tmp_path)
    assert [task.name for task in tasks] == ["NanoNFCorpus", "NanoSciFact"]
    assert tasks[0] == Retrieval(
        name="NanoNFCorpus",
        query_ids=("q1", "q2"),
        queries=("what lifts", "what steers"),
        document_ids=("d1", "d2"),
        documents=("wings lift", "tails steer"),
        judged={"q1": {"d1": 1}, "q2": {"d2": 1}},
    )


def test_a_split_a_task(tmp_path: Path) -> None:
    """One repository for all tasks; in one of its forms a row holds all documents of a query."""
    write_hub(tmp_path, "NanoNQ")
    write_hub(tmp_path, "NanoFEVER", qrels=[{"query-id": "q2", "corpus-id": ["d1", "d2"]}])
    fever, nq = find_tasks(tmp_path)
    assert (fever.name, nq.name) == ("NanoFEVER", "NanoNQ")
    assert isinstance(fever, Retrieval)
    assert fever.judged == {"q2": {"d1": 1, "d2": 1}}
    assert fever.queries == ("what steers",)


def test_shards_titles_scores_and_judgments_by_another_name(tmp_path: Path) -> None:
    """As mteb has them: numbers as ids, qrels the default part, one split of corpus and queries for all."""
    folder = tmp_path / "wings"
    write(folder / "corpus/corpus-00000-of-00002.parquet", [{"_id": 1, "title": "Wings", "text": "lift "}])
    write(folder / "corpus/corpus-00001-of-00002.parquet", [{"_id": 2, "title": "", "text": " steer"}])
    write(folder / "queries/queries-00000-of-00001.parquet", [{"_id": "q1", "text": "what"}])
    for split, grade in (("dev", 1), ("test", 2)):
        rows = [
            {"query-id": "q1", "corpus-id": "1", "score": grade},
            {"query-id": "q1", "corpus-id": "2", "score": 0},
        ]
        write(folder / f"default/{split}-00000-of-00001.parquet", rows)
    (task,) = find_tasks(folder)
    assert isinstance(task, Retrieval)
    assert task.documents == ("Wings lift", "steer")
    assert task.judged == {"q1": {"1": 2, "2": 0}}, "test comes before dev"


def test_listed_documents_make_it_reranking(tmp_path: Path) -> None:
    more = [*CORPUS, {"_id": "d3", "text": "listed for nobody"}]
    listed = [{"query-id": q, "corpus-ids": ["d2", "d1"]} for q in ("q1", "q2", "q3")]
    (task,) = find_tasks(write_hub(tmp_path / "wings", "test", corpus=more, top_ranked=listed))
    assert isinstance(task, Reranking)
    assert task.candidates == {"q1": ("d2", "d1"), "q2": ("d2", "d1")}
    assert task.document_ids == ("d1", "d2")
    assert task.judged == {"q1": {"d1": 1}, "q2": {"d2": 1}}


def test_beir_judgments_without_a_header_or_as_rows(tmp_path: Path) -> None:
    for name, file, text in (
        ("plain", "test.tsv", "q1\td1\t2\n"),
        ("rows", "test.jsonl", '{"query-id": "q1", "corpus-id": "d1", "score": 2}\n'),
    ):
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        for part, rows in (("corpus", CORPUS), ("queries", QUERIES)):
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "qrels" / file).write_text(text)
    for task in find_tasks(tmp_path):
        assert isinstance(task, Retrieval)
        assert task.judged == {"q1": {"d1": 2}}


BROKEN: dict[str, tuple[dict[str, Rows], str]] = {
    "other ids": (
        {"qrels": [{"query-id": "q9", "corpus-id": "d1"}]},
        "{folder}/qrels/train-00000-of-00001.parquet: no judgment is about a query and a document of "
        "{folder}: do the ids match?",
    ),
    "a column": (
        {"queries": [{"_id": "q1", "query": "what"}]},
        "{folder}/queries/train-00000-of-00001.parquet: row 1: no value for 'text'; found _id, query",
    ),
    "an id twice": (
        {"corpus": [*CORPUS, CORPUS[0]]},
        "{folder}/corpus/train-00000-of-00001.parquet: row 3: _id 'd1' occurs twice",
    ),
    "a listed document": (
        {"top_ranked": [{"query-id": "q1", "corpus-ids": ["d1", "d9"]}]},
        "{folder}/top_ranked/train-00000-of-00001.parquet: row 1: document 'd9' is not in corpus/",
    ),
    "a list": (
        {"top_ranked": [{"query-id": "q1", "corpus-ids": ["d1"]}]},
        "task 'wings': no documents are listed for query 'q2' in top_ranked/",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folder(tmp_path: Path, case: str) -> None:
    parts, message = BROKEN[case]
    folder = write_hub(tmp_path / "wings", **parts)
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    assert str(error.value) == message.replace("{folder}", str(folder))


def test_a_part_or_a_split_is_missing(tmp_path: Path) -> None:
    folder = write_hub(tmp_path / "wings")
    judgments = folder / "qrels/train-00000-of-00001.parquet"
    kept = judgments.read_bytes()
    judgments.unlink()
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    what = "looks like a retrieval folder of parquet files, but qrels/*.parquet is missing"
    assert str(error.value) == f"{folder}: {what}"
    judgments.write_bytes(kept)
    corpus = folder / "corpus/train-00000-of-00001.parquet"
    for split in ("dev", "test"):
        corpus.with_name(f"{split}.parquet").write_bytes(corpus.read_bytes())
    corpus.unlink()
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    what = "no split 'train', which the judgments have; found dev, test"
    assert str(error.value) == f"{folder / 'corpus'}: {what}"


def test_prompts_by_the_name_of_the_folder(tmp_path: Path) -> None:
    (task,) = find_tasks(write_hub(tmp_path / "NanoNFCorpus"))
    encoder = tiny_encoder(tmp_path / "base", text=PREFIXED)
    export_encoder(encoder, tmp_path / "model")
    own = {"NanoNFCorpus-query": "find: ", "NanoNFCorpus": "read: ", "Retrieval-query": "any: "}
    path = tmp_path / "model/config_sentence_transformers.json"
    change_json(path, lambda config: config["prompts"].update(own))
    embedder = open_sentence_transformer(tmp_path / "model")
    found = prompted(embedder, task)
    assert [found.prompt(side) for side in ("query", "document")] == ["find: ", "read: "]
    (other,) = find_tasks(write_hub(tmp_path / "other"))
    found = prompted(embedder, other)
    assert [found.prompt(side) for side in ("query", "document")] == ["any: ", "text: "]
