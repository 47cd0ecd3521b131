"""What the examples of docs/data.md leave open: packed files, other spellings, data sets of `datasets`."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import read_all, read_record, write_records

from embedtrain.config.errors import UserError
from embedtrain.data.formats.hub import read_hub
from embedtrain.data.formats.request import Request
from embedtrain.data.formats.table import FORMATS
from embedtrain.data.formats.texts import Texts
from embedtrain.data.problems import Problems
from embedtrain.data.rows import Row

RECORDS: list[dict[str, Any]] = [
    {"query": "wie alt werden Eiben", "positive": "Über 1.000 Jahre.", "negative": "Eiben sind giftig."},
    {"query": 'say "yew"', "positive": "line one\nline two", "negative": "a, b"},
]
ROWS = [Row(r["query"], (r["positive"],), (r["negative"],), source="trees") for r in RECORDS]


# --- files --------------------------------------------------------------------------------------------------


def write_zst(path: Path) -> None:
    """Lines, packed with zstd."""
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(write_records(path.parent / "plain", RECORDS).read_bytes())


def write_csv(path: Path, sign: str) -> None:
    """A table with quoted cells, as spreadsheets write it."""
    cells = [[f'"{value.replace(chr(34), chr(34) * 2)}"' for value in r.values()] for r in RECORDS]
    lines = [sign.join(row) + "\r\n" for row in [list(RECORDS[0]), *cells]]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(lines).encode())


WRITERS = {
    "trees.jsonl": lambda path: write_records(path, RECORDS),
    "trees.jsonl.gz": lambda path: path.write_bytes(
        gzip.compress(write_records(path.parent / "plain", RECORDS).read_bytes())
    ),
    "trees.jsonl.zst": write_zst,
    "trees.json": lambda path: path.write_text(json.dumps(RECORDS, indent=1)),
    "trees.csv": lambda path: write_csv(path, ","),
    "trees.tsv": lambda path: write_csv(path, "\t"),
    "trees.parquet": lambda path: pq.write_table(pa.Table.from_pylist(RECORDS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert read_all(tmp_path / name) == ROWS


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    assert read_all(write_records(tmp_path / "trees.json", RECORDS)) == ROWS


@pytest.mark.parametrize("name", ["one", "splits"])
def test_folders_that_datasets_saved(tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(RECORDS)
    if name == "splits":
        saved = datasets.DatasetDict({"validation": saved.select([1]), "train": saved})
    saved.save_to_disk(str(tmp_path / "trees"))
    assert read_all(tmp_path / "trees") == ROWS
    if name == "splits":
        assert read_all(tmp_path / "trees", split="validation") == ROWS[1:]
        with pytest.raises(UserError, match=r"no split 'valid'; did you mean 'validation'\?"):
            read_all(tmp_path / "trees", split="valid")


def test_data_sets_of_the_hub_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the library reads a folder of that name as it reads the hub's
    pytest.importorskip("datasets")
    (tmp_path / "owner" / "trees").mkdir(parents=True)
    write_records(tmp_path / "owner" / "trees" / "train.jsonl", RECORDS)
    monkeypatch.chdir(tmp_path)
    found = list(read_hub("owner/trees", None))
    assert [dict(record.values) for record in found] == RECORDS
    assert found[1].place == "owner/trees[train]: row 2"


def test_a_data_set_that_cannot_be_had_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^owner/no-such-set: no such file, and no data set of the hub"):
        read_all("owner/no-such-set")


# --- detection ----------------------------------------------------------------------------------------------


def test_two_formats_that_fit_are_both_named(tmp_path: Path) -> None:
    path = write_records(tmp_path / "x.jsonl", [{"query": "q", "pos": ["d"], "positives": ["d"]}])
    with pytest.raises(UserError) as error:
        read_all(path)
    assert str(error.value).splitlines() == [
        f"{path}: may be of several formats; choose one",
        "  --format rows: keys 'query' and 'positives'",
        "  --format flagembedding: keys 'query' and 'pos'",
    ]


def test_an_unknown_shape_says_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    path = write_records(tmp_path / "x.jsonl", [{"premise": "a", "hypothesis": "b", "label": 1}])
    with pytest.raises(UserError) as error:
        read_all(path)
    text = str(error.value)
    assert f"{path}: no known format\n  its keys are premise, hypothesis, label\n" in text
    assert all(f"\n  {name} " in text for name in FORMATS)
    assert "need a --task" in text


def test_columns_are_renamed_before_detection(tmp_path: Path) -> None:
    row = read_record(tmp_path, {"q": "a", "d": ["b"], "x": 1}, columns={"query": "q", "pos": "d"})
    assert row == Row("a", ("b",))


# --- other spellings ----------------------------------------------------------------------------------------


def test_flagembedding_without_scores_and_with_gritlms_instructions(tmp_path: Path) -> None:
    record = {"query": ["Find it\n", "q"], "pos": [["", "d"]], "neg": [["Find it", "n"]], "pos_scores": []}
    assert read_record(tmp_path, record) == Row("q", ("d",), ("n",), instruction="Find it")
    assert read_record(tmp_path, {"query": "q", "pos": ["d"], "neg_scores": None}) == Row("q", ("d",))
    with pytest.raises(UserError, match=r"one.jsonl:1: 'pos\[0\]': a document's instruction other than"):
        read_record(tmp_path, record | {"pos": [["Answer", "d"]]})


@pytest.mark.parametrize(
    ("kind", "task"), [("normal", "retrieval"), ("symmetric_class", "classification"), ("code", "code")]
)
def test_flagembedding_types_are_tasks(tmp_path: Path, kind: str, task: str) -> None:
    assert read_record(tmp_path, {"query": "q", "pos": ["d"], "type": kind}).task == task


def test_tevatron_keeps_scores_where_all_passages_have_one(tmp_path: Path) -> None:
    passages = [{"docid": "1", "text": "d", "score": 2}], [{"docid": "2", "text": "n", "score": -1.5}]
    record = {"query": "q", "positive_passages": passages[0], "negative_passages": passages[1]}
    assert read_record(tmp_path, record) == Row("q", ("d",), ("n",), (2.0,), (-1.5,))
    without = record | {"negative_passages": [{"docid": "2", "text": "n"}]}
    assert read_record(tmp_path, without) == Row("q", ("d",), ("n",))


def test_swift_joins_a_documents_system_message_and_refuses_what_is_no_text(tmp_path: Path) -> None:
    user = {"role": "user", "content": "q"}
    documents = [[{"role": "system", "content": "Care:"}, {"role": "user", "content": "d"}]]
    record = {"messages": [user], "positive_messages": documents}
    assert read_record(tmp_path, record) == Row("q", ("Care: d",))
    cases = {
        r"'messages': found <image>; only text": [{"role": "user", "content": "<image>q"}],
        r"'messages': found the roles user, assistant; expected user": [
            user,
            {"role": "assistant", "content": "a"},
        ],
        r"'messages\[0\].content': found nothing, expected a text": [{"role": "user"}],
    }
    for message, messages in cases.items():
        with pytest.raises(UserError, match=message):
            read_record(tmp_path, record | {"messages": messages})


def test_nemo_by_id_with_a_corpus_of_ones_own(tmp_path: Path) -> None:
    record = {
        "question_id": "1",
        "question": "q",
        "corpus_id": "c",
        "pos_doc": ["a"],
        "neg_doc": [{"id": "b"}],
    }
    corpus = write_records(tmp_path / "corpus.jsonl", [{"id": "a", "text": "d"}, {"id": "b", "text": "n"}])
    assert read_record(tmp_path, record, corpus=str(corpus)) == Row("q", ("d",), ("n",))
    with pytest.raises(UserError, match=r"one.jsonl: its documents are ids; name their file with --corpus"):
        read_record(tmp_path, record)


def write_beir(folder: Path, **qrels: str) -> Path:
    """A BEIR folder with these splits."""
    (folder / "qrels").mkdir(parents=True)
    write_records(folder / "corpus.jsonl", [{"_id": "a", "text": "d"}, {"_id": "b", "text": "n"}])
    write_records(folder / "queries.jsonl", [{"_id": "1", "text": "q"}, {"_id": "2", "text": "r"}])
    for split, lines in qrels.items():
        text = "query-id\tcorpus-id\tscore\n" + lines
        (folder / "qrels" / f"{split}.tsv").write_text(text)
    return folder


def test_beir_takes_train_or_the_only_split_or_the_one_asked_for(tmp_path: Path) -> None:
    both = write_beir(tmp_path / "both", test="2\ta\t1\n", train="1\ta\t1\n1\tb\t0\n")
    assert read_all(both) == [Row("q", ("d",), ("n",))]
    assert read_all(both, split="test") == [Row("r", ("d",))]
    assert read_all(write_beir(tmp_path / "one", test="2\ta\t1\n")) == [Row("r", ("d",))]
    two = write_beir(tmp_path / "two", test="2\ta\t1\n", dev="1\ta\t1\n")
    with pytest.raises(UserError, match=r"two/qrels: no split 'train'; .*choose one with --split"):
        read_all(two)


def test_beir_counts_queries_without_an_answer(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "x", train="1\ta\t0\n2\ta\t1\n")
    request = Request(str(folder), Problems())
    assert [row.query for _, row in FORMATS["beir"].read(request)] == ["r"]
    assert list(request.left_out.values()) == [1]


def test_msmarco_triples_of_texts(tmp_path: Path) -> None:
    (tmp_path / "triples.train.small.tsv").write_text('q\t"d" he said\tn\n')
    assert read_all(tmp_path / "triples.train.small.tsv") == [Row("q", ('"d" he said',), ("n",))]


def test_pylate_as_files_of_a_data_set_with_lists_in_text(tmp_path: Path) -> None:
    train = tmp_path / "kd.csv"
    train.write_text('query_id,document_ids,scores\n1,"[4, 5]","[0.5, 0.75]"\n')
    queries = write_records(tmp_path / "q.jsonl", [{"query_id": 1, "text": "q"}])
    documents = write_records(tmp_path / "d.jsonl", [{"document_id": n, "text": f"d{n}"} for n in (4, 5)])
    row = Row("q", ("d5",), ("d4",), (0.75,), (0.5,))
    assert read_all(train, queries=str(queries), corpus=str(documents)) == [row]


# --- texts by id --------------------------------------------------------------------------------------------


def test_texts_are_found_across_blocks_and_repeated_ids_are_told() -> None:
    entries = [(f"c:{n}", str(n), f"text {n}") for n in range(20_000)]
    problems = Problems()
    texts = Texts([*entries, ("c:20001", "7", "text 7")], "corpus", problems)
    assert [texts.get("id", str(n)) for n in (0, 8191, 8192, 19_999)] == [
        "text 0",
        "text 8191",
        "text 8192",
        "text 19999",
    ]
    assert not problems
    Texts([*entries, ("c:20001", "7", "other")], "corpus", problems)
    assert problems.messages == ["corpus: id '7' names two texts, 'text 7' and 'other'"]
