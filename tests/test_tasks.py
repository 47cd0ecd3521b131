"""Test data on disk to tasks, and exact messages for what is broken."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedtrain.config.errors import UserError
from embedtrain.evaluation.readers import ACCEPTED, find_tasks
from embedtrain.evaluation.tasks import (
    Bitext,
    Classification,
    Clustering,
    PairClassification,
    Retrieval,
    Similarity,
)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A jsonl file, compressed where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_beir(
    folder: Path, qrels: str = "query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t2\t0\nq9\t1\t1\n"
) -> Path:
    """A small BEIR folder."""
    documents = [{"_id": 1, "title": "Wing", "text": "lift"}, {"_id": "2", "text": " drag "}]
    write(folder / "corpus.jsonl", documents)
    write(folder / "queries.jsonl", [{"_id": "q1", "text": "what?"}, {"_id": "q2", "text": "not judged"}])
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


# what is recognised


def test_beir_folder(tmp_path: Path) -> None:
    (task,) = find_tasks(write_beir(tmp_path / "wings"))
    assert task == Retrieval(
        name="wings",
        query_ids=("q1",),
        queries=("what?",),
        document_ids=("1", "2"),
        documents=("Wing lift", "drag"),
        judged={"q1": {"1": 2, "2": 0}},
    )


@pytest.mark.parametrize("keys", [("pos", "neg"), ("positives", "negatives")])
def test_rows_share_queries_and_documents(tmp_path: Path, keys: tuple[str, str]) -> None:
    positive, negative = keys
    rows = [
        {"query": "a", positive: ["x", "y"], negative: ["z"]},
        {"query": "b", positive: "y"},
        {"query": "a", positive: ["z"], negative: None},
    ]
    (task,) = find_tasks(write(tmp_path / "faq.jsonl", rows))
    assert isinstance(task, Retrieval)
    assert (task.name, task.queries, task.documents) == ("faq", ("a", "b"), ("x", "y", "z"))
    assert task.judged == {"q0": {"d0": 1, "d1": 1, "d2": 1}, "q1": {"d1": 1}}


def test_rows_in_parquet(tmp_path: Path) -> None:
    rows = [{"query": "a", "positives": ["x"], "negatives": None, "score": None, "label": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "faq.parquet")
    (task,) = find_tasks(tmp_path)
    assert isinstance(task, Retrieval)
    assert task.sizes == {"queries": 1, "documents": 1}


@pytest.mark.parametrize(("first", "second"), [("text1", "text2"), ("sentence1", "sentence2")])
def test_pairs_by_their_keys(tmp_path: Path, first: str, second: str) -> None:
    write(tmp_path / "sts.jsonl", [{first: "a", second: "b", "score": s} for s in (1, 2.5)])
    write(tmp_path / "same.jsonl.gz", [{first: "a", second: "b", "label": label} for label in (0, 1)])
    same, sts = find_tasks(tmp_path)
    assert same == PairClassification(name="same", first=("a", "a"), second=("b", "b"), labels=(0, 1))
    assert sts == Similarity(name="sts", first=("a", "a"), second=("b", "b"), scores=(1.0, 2.5))


def test_bitext(tmp_path: Path) -> None:
    (task,) = find_tasks(write(tmp_path / "en-de.jsonl", [{"sentence1": "yes", "sentence2": "ja"}]))
    assert task == Bitext(name="en-de", first=("yes",), second=("ja",))


@pytest.mark.parametrize("pattern", ["intents-{}.jsonl", "intents_{}.jsonl", "intents/{}.jsonl"])
def test_train_and_test_files_make_one_classification_task(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / pattern.format("train"), [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write(tmp_path / pattern.format("test"), [{"text": "c", "label": "y"}])
    (task,) = find_tasks(tmp_path)
    assert task == Classification(
        name="intents", train_texts=("a", "b"), train_labels=("x", "y"), test_texts=("c",), test_labels=("y",)
    )


def test_labels_without_training_texts_make_a_clustering_task(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 3}, {"text": "b", "label": 4}]
    (task,) = find_tasks(write(tmp_path / "topics-test.jsonl", rows))
    assert task == Clustering(name="topics", texts=("a", "b"), labels=(3, 4))


def test_training_part_of_another_kind_is_not_measured(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"text1": split, "text2": "b", "score": s} for s in (1, 2)]
        write(tmp_path / f"sts-{split}.jsonl", rows)
    (task,) = find_tasks(tmp_path)
    assert isinstance(task, Similarity)
    assert task.first == ("test", "test")


def test_folders_are_searched_and_other_files_left_alone(tmp_path: Path) -> None:
    write_beir(tmp_path / "b" / "wings")
    write(tmp_path / "a.jsonl", [{"sentence1": "yes", "sentence2": "ja"}])
    for name in ("README.md", "card.json", ".hidden.jsonl"):
        (tmp_path / name).write_text("not data")
    assert [task.name for task in find_tasks(tmp_path)] == ["a", "wings"]


# what is broken

PAIR = {"text1": "a", "text2": "b"}
BROKEN: dict[str, tuple[str, str]] = {
    "no json": ('{"text": "a", "label"', "{path}:1: not JSON: Expecting ':' delimiter at column 22"),
    "second line": ('{"text1": "a"}\n\n[1]\n', "{path}:3: a list, expected a JSON object"),
    "empty": ("\n", "{path}: no rows"),
    "unknown keys": ('{"question": "a", "answer": "b"}', None),
    "text of another kind": (
        '{"text1": "a", "text2": 5, "score": 1}',
        "{path}:1: 'text2' is 5 (number), expected a text",
    ),
    "missing in a later row": (
        '{"text1": "a", "text2": "b", "score": 1}\n{"text1": "a", "score": 1}',
        "{path}:2: no value for 'text2'; found text1, score",
    ),
    "score as text": (
        '{"text1": "a", "text2": "b", "score": "4"}',
        "{path}:1: 'score' is '4' (text), expected a number",
    ),
    "score not finite": (
        '{"text1": "a", "text2": "b", "score": NaN}',
        "{path}:1: 'score' is nan (number), expected a number",
    ),
    "all scores equal": (
        '{"text1": "a", "text2": "b", "score": 1}\n{"text1": "a", "text2": "c", "score": 1}',
        "task 'data': every score is 1.0 (number); at least two different are needed",
    ),
    "pair label": (
        '{"text1": "a", "text2": "b", "label": 2}',
        "{path}:1: 'label' is 2 (number), expected 0 or 1",
    ),
    "positives": (
        '{"query": "a", "pos": [1]}',
        "{path}:1: 'pos' is a list, expected a text or a list of texts",
    ),
    "mixed labels": (
        '{"text": "a", "label": 1}\n{"text": "a", "label": "x"}',
        "{path}:2: 'label' is 'x' (text), expected the kind of the first row, 1 (number)",
    ),
    "no positive": (
        '{"query": "a", "pos": []}',
        "{path}:1: 'pos' is empty, expected a text or a list of texts",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file(tmp_path: Path, case: str) -> None:
    text, message = BROKEN[case]
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    if message is None:
        message = f"{{path}}:1: keys question, answer are those of no test data\n{ACCEPTED}"
    with pytest.raises(UserError) as error:
        find_tasks(path)
    assert str(error.value) == message.replace("{path}", str(path))


def test_not_utf8_and_not_parquet(tmp_path: Path) -> None:
    for name in ("data.jsonl", "data.jsonl.gz", "data.parquet"):
        path = tmp_path / name
        path.write_bytes(b"\xff\xfe\x00garbage")
        with pytest.raises(UserError, match=f"{name}: cannot be read: "):
            find_tasks(path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path / "absent")
    assert str(error.value) == f"{tmp_path / 'absent'}: no such file or folder"


def test_nothing_recognised_lists_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    found = f"{tmp_path}: no test data found; the folder holds empty/, notes.txt\n{ACCEPTED}"
    assert str(error.value) == found


def test_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x")
    with pytest.raises(UserError) as error:
        find_tasks(path)
    assert str(error.value) == f"{path}: not a .jsonl, .jsonl.gz or .parquet file\n{ACCEPTED}"


def test_parts_of_a_beir_folder_missing(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "wings")
    (folder / "qrels" / "test.tsv").unlink()
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    missing = "queries.jsonl, qrels/test.tsv is missing"
    assert str(error.value) == f"{folder}: looks like a BEIR folder, but {missing}"


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        (
            "q1\t1\tgood\n",
            "{path}:1: expected query id, document id and an integer, by tabs: 'q1\\t1\\tgood'",
        ),
        ("query-id\tcorpus-id\tscore\nq1 1 1\n", "{path}:2: expected query id, document id and an integer, "),
        ("query-id\tcorpus-id\tscore\n", "{path}: no judgments"),
        ("q1\t7\t1\n", "{path}: no judgment is about a query and a document of {folder}: do the ids match?"),
    ],
)
def test_broken_qrels(tmp_path: Path, qrels: str, message: str) -> None:
    folder = write_beir(tmp_path / "wings", qrels)
    path = folder / "qrels" / "test.tsv"
    with pytest.raises(UserError) as error:
        find_tasks(folder)
    assert str(error.value).startswith(message.format(path=path, folder=folder))


def test_repeated_document(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "wings")
    write(folder / "corpus.jsonl", [{"_id": "1", "text": "a"}, {"_id": 1, "text": "b"}])
    with pytest.raises(UserError) as error:
        find_tasks(folder)
    assert str(error.value) == f"{folder / 'corpus.jsonl'}:2: _id '1' occurs twice"


def test_label_that_training_lacks(tmp_path: Path) -> None:
    train = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    write(tmp_path / "i-train.jsonl", train)
    path = write(tmp_path / "i-test.jsonl", [{"text": "c", "label": "x"}, {"text": "c", "label": "z"}])
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    there = tmp_path / "i-train.jsonl"
    assert str(error.value) == f"{path}:2: label 'z' (text) does not occur in {there}"


def test_two_tasks_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "en-de.jsonl", [{"sentence1": "yes", "sentence2": "ja"}])
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    assert str(error.value) == f"{tmp_path}: more than one task is named 'en-de'; rename one of the files"


def test_one_split_in_two_files(tmp_path: Path) -> None:
    for name in ("a-test.jsonl", "a_test.jsonl"):
        write(tmp_path / name, [{"sentence1": "yes", "sentence2": "ja"}])
    with pytest.raises(UserError) as error:
        find_tasks(tmp_path)
    first, second = tmp_path / "a-test.jsonl", tmp_path / "a_test.jsonl"
    assert str(error.value) == f"{second}: the same task and split as {first}; rename one of the files"
