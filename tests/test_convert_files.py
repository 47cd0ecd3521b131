"""`convert_files`: what it writes and prints, and mistakes of its options."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from foreign_files import GOOD, faults, write_lines

from embedtrain.config.errors import UserError
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row
from embedtrain.data.store import open_rows
from embedtrain.stages.convert import convert_files

ROOT = str(Path(__file__).resolve().parent.parent)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


# --- what is written ---------------------------------------------------------------------------------------


def test_rows_of_several_paths_are_joined_filled_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_lines("faq.jsonl", *GOOD), write_lines("x.csv", "question,answer", "q,d")]
    convert_files(paths, Path("out"), instruction="Answer", source="garden")
    rows = list(open_rows("out"))
    assert [row.query for row in rows] == ["why mulch", "when to mulch", "what is mulch", "q"]
    assert [row.instruction for row in rows] == ["Answer", "Answer", "Define it", "Answer"]
    assert {row.source for row in rows} == {"garden"}
    printed = capsys.readouterr().out
    assert re.search(r"out: 4 rows, 10 texts", printed)
    assert re.search(r"faq.jsonl +flagembedding +3 +1.00 +0.67", printed)
    assert re.search(r"x.csv +columns +1 +1.00 +0.00", printed)


def test_keys_that_no_format_reads_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    convert_files([write_lines("faq.jsonl", GOOD[1])], Path("out"))
    assert "faq.jsonl: not read: meta\n" in capsys.readouterr().out


def test_graded_pairs_come_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    convert_files([write_lines("x.csv", "text1,text2,score", "a,b,1", "c,d,")], Path("out"))
    assert "\nrows with a grade: 1; cosent learns from it," in capsys.readouterr().out


def test_the_limit_holds_for_all_paths_together() -> None:
    path = write_lines("faq.jsonl", *GOOD)
    convert_files([path, path], Path("out"), limit=4)
    assert count_rows("out") == 4


def test_faulty_records_can_be_left_out_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines("faq.jsonl", GOOD[0], "{", {"query": "q", "pos": []}, GOOD[1])
    convert_files([path], Path("out"), skip_faulty=True)
    assert [row.query for row in open_rows("out")] == ["why mulch", "when to mulch"]
    printed = capsys.readouterr().out
    assert "left out with faults: 2, such as\n  faq.jsonl:2: broken JSON" in printed


def test_own_rows_of_both_versions_are_read_again() -> None:
    row = Row("q", ("d", "e"), ("n",), (1.0, 0.5), (0.25,), 3.0, "class", "sts", "Find", "garden")
    record = {"query": "q", "positives": ["d", "e"], "negatives": ["n"], "positive_scores": [1, 0.5]}
    record |= {"negative_scores": [0.25], "score": 3, "label": "class", "task": "sts"}
    record |= {"instruction": "Find", "source": "garden"}
    convert_files([write_lines("one.jsonl", record)], Path("two"))
    convert_files(["two"], Path("three"))
    assert list(open_rows("two")) == list(open_rows("three")) == [row]


def test_a_task_takes_columns_of_other_names() -> None:
    path = write_lines("sts.tsv", "a\tb\tgold", "It rains.\tRain falls.\t4.5", "It rains.\tA cat.\t0")
    names = {"sentence1": "a", "sentence2": "b", "score": "gold"}
    convert_files([path], Path("graded"), task="sts", columns=names)
    assert [row.score for row in open_rows("graded")] == [4.5, 0.0]
    convert_files([path], Path("pairs"), task="sts_pairs", columns=names)
    assert [(row.query, row.positives) for row in open_rows("pairs")] == [
        ("It rains.", ("Rain falls.",)),
        ("Rain falls.", ("It rains.",)),
    ]


# --- mistakes of the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"format": "flagembeding"},
            r"--format flagembeding: no such format; did you mean 'flagembedding'\?",
        ),
        ({"columns": {"query": "qurey"}}, r"faq.jsonl:1: no column 'qurey'; did you mean 'query'\?"),
        ({"task": "nlii"}, r"--task nlii: no such task; did you mean 'nli'\?"),
        ({"task": "nli", "format": "columns"}, "--format and --task exclude each other: .*"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, str], message: str) -> None:
    lines = faults(write_lines("faq.jsonl", *GOOD), **options)
    assert len(lines) == 1
    assert re.fullmatch(message, lines[0])


def test_paths_that_do_not_fit() -> None:
    write_lines("faq.jsonl", *GOOD)
    Path("faq.txt").write_text("text\n")
    Path("nothing").mkdir()
    assert faults("data/faq.jsonl") == ["data/faq.jsonl: no such file; there is no folder 'data'"]
    assert faults("faw.jsonl") == ["faw.jsonl: no such file; did you mean 'faq.jsonl'?"]
    assert faults("faq.txt")[0].startswith("faq.txt: unknown kind of file; expected .jsonl, .json, .csv")
    assert faults("nothing") == ["nothing: no data files in this folder"]


def test_a_folder_that_is_there_is_kept() -> None:
    write_lines("faq.jsonl", *GOOD)
    Path("out").mkdir()
    with pytest.raises(UserError, match=r"^out: is there already; remove it or give another name$"):
        convert_files(["faq.jsonl"], Path("out"))


def test_the_command_exits_with_2_and_no_traceback() -> None:
    path = write_lines("faq.jsonl", {"query": "q", "pos": []}, {"query": "q", "pos": [1]})
    words = [sys.executable, "-m", "embedtrain", "convert", path, "--out", "out"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": ROOT}
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2:] == [
        "faq.jsonl:1: 'positives': found an empty list, expected at least one text",
        "faq.jsonl:2: 'pos[0]': found 1 (number), expected a text",
    ]
    assert not Path("out").exists()
