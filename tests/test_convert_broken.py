"""Broken input of `convert_files`: every fault is told with its place, and nothing is written."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_files import GOOD, faults, write_lines


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_every_fault_of_a_file_is_told_at_once_with_its_line() -> None:
    path = write_lines(
        "faq.jsonl",
        '{"query": "q", "pos": ["d"',
        GOOD[0],
        [1],
        {"pos": ["d"]},
        {"query": 7, "pos": ["d"]},
        {"query": "q", "pos": ["d", None]},
        {"query": "q", "pos": []},
        {"query": "q", "pos": ["d"], "pos_scores": [1, 2]},
        {"query": "q", "pos": ["d"], "neg": ["n"], "neg_scores": ["high"]},
        {"query": "q", "pos": ["d"], "neg": ["d "]},
        {"query": " ", "pos": ["d"]},
        {"query": "q", "pos": ["\ud800"]},
    )
    assert faults(path, format="flagembedding") == [
        "faq.jsonl:1: broken JSON at column 27: Expecting ',' delimiter",
        "faq.jsonl:3: found a list, expected a JSON object with keys",
        "faq.jsonl:4: 'query' is missing; found 'pos'; expected a text",
        "faq.jsonl:5: 'query': found 7 (number), expected a text",
        "faq.jsonl:6: 'pos[1]': found nothing, expected a text",
        "faq.jsonl:7: 'positives': found an empty list, expected at least one text",
        "faq.jsonl:8: 'positive_scores': found 2 scores for 1 positives",
        "faq.jsonl:9: 'neg_scores[0]': found 'high' (text), expected a finite number",
        "faq.jsonl:10: 'negatives[0]': 'd ' is also a positive of this row",
        "faq.jsonl:11: 'query': found blank text, expected a query",
        "faq.jsonl:12: 'pos[0]': found '\\ud800' (text), expected a text",
    ]


def test_of_many_faults_twenty_are_told_and_the_rest_counted() -> None:
    lines = faults(write_lines("faq.jsonl", GOOD[0], *[{"query": "q", "pos": []}] * 27))
    assert len(lines) == 21
    assert lines[-1] == "… and 7 more"


def test_files_that_break_off_or_hold_no_text() -> None:
    text = "".join(json.dumps(record) + "\n" for record in GOOD * 40).encode()
    Path("cut.jsonl.gz").write_bytes(gzip.compress(text)[:-9])
    with pa.CompressedOutputStream("whole.zst", "zstd") as file:
        file.write(text)
    Path("cut.jsonl.zst").write_bytes(Path("whole.zst").read_bytes()[:-4])
    Path("no.jsonl.zst").write_bytes(b"PK not packed so")
    Path("latin.jsonl").write_bytes(text + '{"query": "é"}\n'.encode("latin-1"))
    Path("empty.jsonl").write_text("\n")
    Path("empty.csv").write_text("query,pos\n")
    Path("no.parquet").write_text("PAR")
    expected = {
        "cut.jsonl.gz": r"cut.jsonl.gz:\d+: broken gzip file: .*",
        "cut.jsonl.zst": r"cut.jsonl.zst:\d+: broken zstd file: .*",
        "no.jsonl.zst": r"no.jsonl.zst:1: broken zstd file: .*",
        "latin.jsonl": r"latin.jsonl:121: not UTF-8 text \(byte 12 of the line\)",
        "empty.jsonl": "empty.jsonl: no rows; expected at least one",
        "empty.csv": "empty.csv: no rows; expected at least one",
        "no.parquet": "no.parquet: not a parquet file: .*",
    }
    for name, message in expected.items():
        lines = faults(name)
        assert len(lines) == 1, lines
        assert re.fullmatch(message, lines[0]), lines


def test_tables_with_odd_rows() -> None:
    Path("x.csv").write_text('query,pos,neg\na,b\na,b,c,d\na,b,c\n"a,b,c\n')
    assert faults("x.csv") == [
        "x.csv:2: 2 cells for the 3 columns of the first line",
        "x.csv:3: 4 cells for the 3 columns of the first line",
        "x.csv:5: broken table: unexpected end of data",
    ]


def test_a_column_that_comes_twice() -> None:
    Path("x.csv").write_text("query,pos,pos\na,b,c\n")
    assert faults("x.csv") == ["x.csv:1: the first line names columns, and 'pos' comes twice"]


def test_columns_of_parquet_of_another_type() -> None:
    pq.write_table(pa.table({"query": ["q", "r"], "pos": [[1], [2]]}), "x.parquet")
    assert faults("x.parquet") == [
        "x.parquet: row 1: 'pos[0]': found 1 (number), expected a text",
        "x.parquet: row 2: 'pos[0]': found 2 (number), expected a text",
    ]


def test_ids_that_point_nowhere_are_told_with_their_line_and_their_corpus() -> None:
    record = {"query_id": "1", "query_text": "q", "positive_document_ids": ["a"]}
    path = write_lines("ids.jsonl", record, record | {"negative_document_ids": ["b", "z"]})
    corpus = write_lines("corpus.jsonl", {"docid": "a", "text": "d"}, {"docid": "b"}, {"text": "e"})
    assert faults(path, corpus=corpus) == [
        "corpus.jsonl:2: none of text, query, passage, contents has a value; found 'docid'",
        "corpus.jsonl:3: none of docid, _id, id, document_id, query_id, pid, qid has a value; found 'text'",
        "ids.jsonl:2: 'negative_document_ids': 'b' is not among the 1 ids of corpus.jsonl",
    ]


def test_beir_with_broken_judgments() -> None:
    Path("beir/qrels").mkdir(parents=True)
    write_lines("beir/corpus.jsonl", {"_id": "a", "text": "d"})
    write_lines("beir/queries.jsonl", {"_id": "1", "text": "q"})
    write_lines(
        "beir/qrels/train.tsv", "query-id\tcorpus-id\tscore", "1\ta\thigh", "1\ta\t1", "1\tb\t1", "2\ta\t0"
    )
    assert faults("beir") == [
        "beir/qrels/train.tsv:2: 'score': found 'high' (text), expected a finite number",
        "beir/qrels/train.tsv:4: 'document id': 'b' is not among the 1 ids of beir/corpus.jsonl",
    ]
    write_lines("beir/qrels/train.tsv", "1\ta\t2", "1\ta\t1")
    assert faults("beir") == [
        "beir/qrels/train.tsv:2: the columns are 1, a, 2; expected query-id, corpus-id, score"
    ]
    write_lines("beir/qrels/train.tsv", "query-id\tcorpus-id\tscore", "1\ta\t1", "2\ta\t1")
    assert faults("beir") == [
        "beir/qrels/train.tsv:3: 'query id': '2' is not among the 1 ids of beir/queries.jsonl"
    ]


def test_msmarco_with_broken_lines() -> None:
    Path("marco").mkdir()
    write_lines("marco/collection.tsv", "0\td", "1 n")
    write_lines("marco/queries.train.tsv", "5\tq")
    write_lines("marco/qrels.train.tsv", "5\t0\t0\tyes", "5\t0\t7\t1")
    assert faults("marco") == [
        "marco/collection.tsv:2: found 1 cells by tabs, expected 2: id, text",
        "marco/qrels.train.tsv:1: grade: found 'yes', expected a whole number",
        "marco/qrels.train.tsv:2: 'document id': '7' is not among the 1 ids of marco/collection.tsv",
    ]


def test_nemo_with_unknown_corpora_and_no_metadata() -> None:
    Path("garden").mkdir()
    question = {"question_id": "1", "question": "q", "corpus_id": "other", "pos_doc": ["a"]}
    write_lines("x.json", {"corpus": [{"path": "garden"}], "data": [question, 3]})
    assert faults("x.json") == ["x.json: 'corpus': garden has no merlin_metadata.json"]
    write_lines("garden/merlin_metadata.json", {"class": "TextQADataset", "corpus_id": "garden"})
    write_lines("garden/train.jsonl", {"id": "a", "text": "d"})
    assert faults("x.json") == [
        "x.json: data[0]: 'corpus_id': 'other' is none of the file's corpora: garden",
        "x.json: data[1]: 'data': found 3 (number), expected a question with its documents",
    ]


def test_pylate_with_scores_of_another_length() -> None:
    write_lines("q.jsonl", {"query_id": 1, "text": "q"})
    write_lines("d.jsonl", {"document_id": 1, "text": "d"})
    path = write_lines("kd.jsonl", {"query_id": 1, "document_ids": [1], "scores": [0.5, 1]})
    assert faults(path, queries="q.jsonl", corpus="d.jsonl") == [
        "kd.jsonl:1: 'scores': found 2 scores for 1 document_ids"
    ]
    assert faults(path) == ["kd.jsonl: its texts are ids; name their files with --queries and --corpus"]
