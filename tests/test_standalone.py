"""`embedtrain mine`, `score` and `select` on files of other trainers, each stage in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from exports import tiny_export

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.data.rows import Row
from embedtrain.mining.tables import Column, Mined
from embedtrain.search import BM25Index
from embedtrain.standalone import mine_file, score_file, select_file
from embedtrain.standalone.files import scored_row

WORDS = ["apple", "pear", "plum", "train", "plane", "river", "stone", "cloud", "paper", "glass"]
MACHINE = Machine(threads=1)


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
    )
    return path


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 lines whose texts share words: two positives here and there, a prompt, a type."""
    generator = np.random.default_rng(0)
    records = []
    for number in range(24):
        words = generator.choice(WORDS, 4, replace=False).tolist()
        record: dict = {
            "query": f"{words[0]} {words[1]} {number}",
            "pos": [f"{' '.join(words)} text {number}"],
        }
        if number % 8 == 0:
            record["pos"].append(f"{words[0]} {words[1]} another {number}")
        if number % 2:
            record["prompt"] = "Find the fruit: "
            record["type"] = "only_1neg" if number == 1 else "normal"
        records.append(record)
    return write_jsonl(tmp_path_factory.mktemp("given") / "pairs.jsonl", records)


@pytest.fixture(scope="module")
def mined(given: Path) -> Path:
    out = given.with_name("mined.jsonl")
    mine_file([str(given)], out, bm25=True, top_k=8, negatives=5, rules=["none"], machine=MACHINE)
    return out


def test_lines_come_back_with_negatives_and_their_scores(given: Path, mined: Path) -> None:
    before, after = read_jsonl(given), read_jsonl(mined)
    assert [
        {k: line[k] for k in line if not k.startswith("neg") and k != "pos_scores"} for line in after
    ] == before
    positives = {text for line in before for text in line["pos"]}
    texts = sorted(positives)
    index = BM25Index(texts)
    assert sum(len(line["neg"]) for line in after) > 60
    for line in after:
        assert set(line["neg"]) <= positives - set(line["pos"])
        assert line["neg_scores"] == sorted(line["neg_scores"], reverse=True)
        ids = np.array([texts.index(text) for text in line["neg"] + line["pos"]])
        wanted = index.scores(line["query"], ids)
        assert line["neg_scores"] + line["pos_scores"] == pytest.approx(wanted.tolist(), rel=1e-5)


def test_the_work_folder_is_gone_and_a_page_stands_beside_the_lines(mined: Path) -> None:
    assert sorted(path.name for path in mined.parent.glob("mined*")) == ["mined.html", "mined.jsonl"]


@pytest.mark.slow
def test_scores_are_written_beside_the_texts_as_they_stand(mined: Path) -> None:
    out = mined.with_name("scored.jsonl")
    score_file([str(mined)], out, teachers=["bm25"], machine=MACHINE)
    before, after = read_jsonl(mined), read_jsonl(out)
    assert [{k: line[k] for k in line if "scores" not in k} for line in after] == [
        {k: line[k] for k in line if "scores" not in k} for line in before
    ]
    for old, new in zip(before, after, strict=True):
        assert new["pos_scores"] == pytest.approx(old["pos_scores"], rel=1e-5)
        assert new["neg_scores"] == pytest.approx(old["neg_scores"], rel=1e-5)


@pytest.mark.slow
def test_rules_read_the_scores_of_the_lines(mined: Path) -> None:
    out = mined.with_name("selected.jsonl")
    select_file([str(mined)], out, rules=["perc_pos=0.5"], negatives=2, machine=MACHINE)
    kept = 0
    for old, new in zip(read_jsonl(mined), read_jsonl(out), strict=True):
        limit = 0.5 * min(old["pos_scores"])
        stay = [text for text, score in zip(old["neg"], old["neg_scores"], strict=True) if score < limit]
        assert new["neg"] == stay[:2]
        assert new["pos"] == old["pos"]
        kept += len(stay) < len(old["neg"])
    assert kept > 5  # the rule refuses something


@pytest.mark.slow
def test_a_window_of_ranks_needs_no_scores(given: Path, tmp_path: Path) -> None:
    records = [record | {"neg": [f"other {n}" for n in range(6)]} for record in read_jsonl(given)]
    path = write_jsonl(tmp_path / "plain.jsonl", records)
    select_file(
        [str(path)], tmp_path / "out.jsonl.gz", rules=["none"], ranks="3-5", negatives=2, machine=MACHINE
    )
    packed = subprocess.run(
        ["gzip", "-dc", tmp_path / "out.jsonl.gz"], capture_output=True, check=True
    ).stdout
    assert [json.loads(line)["neg"] for line in packed.splitlines()] == [["other 2", "other 3"]] * len(
        records
    )


def test_rules_that_compare_scores_need_some(given: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "plain.jsonl", [read_jsonl(given)[0] | {"neg": ["other"]}])
    with pytest.raises(UserError, match="no row has pos_scores, which the rules compare; `embedtrain score`"):
        select_file([str(path)], tmp_path / "out.jsonl", machine=MACHINE)
    assert [file.name for file in tmp_path.iterdir()] == ["plain.jsonl"]


@pytest.mark.slow
def test_a_model_and_words_together_over_another_corpus(given: Path, tmp_path: Path) -> None:
    _, model = tiny_export(tmp_path)
    (tmp_path / "more.txt").write_text("".join(f"{word} of the corpus\n" for word in WORDS), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    mine_file(
        [str(given)], out, models=[str(model)], bm25=True, corpus=[str(tmp_path / "more.txt")], top_k=20,
        negatives=12, rules=["none"], fill=True, machine=MACHINE,
    )  # fmt: skip
    lines = read_jsonl(out)
    assert {len(line["neg"]) for line in lines} == {12}
    assert any("of the corpus" in text for line in lines for text in line["neg"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "out.json"}, "expected a name that ends in .jsonl or .jsonl.gz"),
        ({"out": "pairs.jsonl"}, "is there already"),
        ({"paths": ["gone.jsonl"]}, "gone.jsonl: no such file"),
        ({"paths": ["broken.jsonl"]}, "broken.jsonl:2: 'pos' is missing"),
        ({"rules": ["perc_pos=7"]}, "--rule perc_pos=7: fraction: found 7"),
        ({"bm25": False}, "no retriever; give --model"),
        ({"ranks": "9-90", "negatives": 80}, "ranks 9 to 5 hold only 0 candidates"),
        ({"corpus": ["gone.txt"]}, "'gone.txt' is not there"),
    ],
)
def test_a_mistake_is_told_and_leaves_nothing(
    change: dict, message: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = given.read_text(encoding="utf-8")
    Path("pairs.jsonl").write_text(lines, encoding="utf-8")
    Path("broken.jsonl").write_text(lines.splitlines()[0] + '\n{"query": "q"}\n', encoding="utf-8")
    options = {"paths": ["pairs.jsonl"], "out": "out.jsonl", "bm25": True, "top_k": 5} | change
    options["out"] = Path(options["out"])
    with pytest.raises(UserError) as error:
        mine_file(**options, machine=MACHINE)
    assert message in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "pairs.jsonl"]


def test_a_text_without_a_score_is_told() -> None:
    mined = Mined(np.array([0]), np.array([[0]]), np.array([[1]], np.int32), {})
    column = Column(np.array([[0.5]], np.float32), [np.array([1.0], np.float32)])
    with pytest.raises(UserError, match="row 'q': a text of it got no score"):
        scored_row(Row("q", ("p",), ("n", "m")), 0, mined, column, np.array([3], np.int64))


def test_lines_without_negatives_are_told(given: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row has negatives; `embedtrain mine` finds some"):
        score_file([str(given)], tmp_path / "out.jsonl", teachers=["bm25"], machine=MACHINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_command_goes_on(given: Path, mined: Path, tmp_path: Path) -> None:
    out = tmp_path / "mined.jsonl"
    words = [
        "mine",
        str(given),
        "--out",
        str(out),
        "--bm25",
        "--top-k",
        "8",
        "--negatives",
        "5",
        "--rule",
        "none",
    ]
    command = [sys.executable, "-m", "embedtrain", *words]
    first = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not list(tmp_path.glob("mined.jsonl.work/stages/mined-????????/done.json")):
        assert time.monotonic() < end
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not out.exists()
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "▶ select" in second.stdout
    assert "▶ mine" not in second.stdout
    assert out.read_bytes() == mined.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mined.html", "mined.jsonl"]
