"""tools/bench/train_step.py: its batches, the gate that all peers pass, the verdict, and a rehearsal."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import TEXTS, save_tiny

from embedtrain.model.tokens import load_tokenizer
from tools.bench.contestants import BARE, CACHED, CONTESTANTS, KEPT, ON_CPU, PLAIN, RECOMPUTING, gpu_size
from tools.bench.peers.parts import Given
from tools.bench.rounds import cosine, gate_faults
from tools.bench.start import adapters, draw_lora, fill_adapters, save_real
from tools.bench.step_figures import BOUNDS, judge, rate_table, step_table, summarise, told, unjudged
from tools.bench.worker import Worker, answer
from tools.bench.workloads import SHAPES, Shape, Workload, draw_workload, random_stream, text_stream

ROOT = Path(__file__).resolve().parent.parent
STREAM = random_stream(400, 50_000, seed=1)
TINY = SHAPES["W3"].shrunk(8, 4)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


# --- batches ------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_workload() -> None:
    fixed = draw_workload("W1", SHAPES["W1"], STREAM, seed=0)
    assert set(fixed.lengths) == {128}
    assert len(fixed.lengths) == 64
    passages = draw_workload("W3", SHAPES["W3"], STREAM, seed=0)
    assert [len(column) for column in passages.columns] == [16] * 9
    queries, documents = passages.lengths[:16], passages.lengths[16:]
    assert 6 < np.median(queries) < 13
    assert 62 < np.median(documents) < 78
    assert documents.max() <= 180
    pairs = replace(SHAPES["W4"], rows=2000)
    mixed = draw_workload("W4", pairs, STREAM, seed=0).lengths
    assert 102 < np.median(mixed) < 118
    assert mixed.max() == 512
    assert np.mean(mixed) == pytest.approx(154, rel=0.05)


def test_a_batch_is_the_same_each_time_and_survives_the_disk(tmp_path: Path) -> None:
    batch = draw_workload("W3", TINY, STREAM, seed=0)
    assert batch == draw_workload("W3", TINY, STREAM, seed=0)
    assert batch != draw_workload("W3", TINY, STREAM, seed=1)
    assert Workload.load(batch.save(tmp_path / "W3.npz")) == batch
    assert batch.documents[:2] == [batch.columns[1][0], batch.columns[2][0]]
    assert batch.head(2).num_rows == 2
    assert batch.head(2).columns[3] == batch.columns[3][:2]


def test_texts_are_real(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_tiny("llama", tmp_path))
    files = sorted((ROOT / "rows").glob("*/train.parquet"))
    stream = text_stream(tokenizer, files, 2_000)
    assert len(stream) >= 2_000
    text = draw_workload("W1", Shape("", TINY.queries, TINY.documents, 2), stream, seed=0).documents[0]
    assert tokenizer.decode(text) in tokenizer.decode(np.concatenate([stream, stream]).tolist())
    with pytest.raises(SystemExit, match="no rows to draw texts from"):
        text_stream(tokenizer, [], 10)


# --- the gate -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without the chat template of the model that it is made from, the LoRA start, a batch."""
    source = save_tiny("llama", tmp_path_factory.mktemp("source"))
    folder = tmp_path_factory.mktemp("made")
    save_real(str(source), 2, folder)
    np.savez(folder / "lora.npz", **draw_lora(folder, seed=1))  # type: ignore[arg-type]
    draw_workload("W3", TINY, STREAM, seed=0).save(folder / "W3.npz")
    return folder


def open_worker(made: Path, opens: str, scratch: Path) -> Worker:
    worker = Worker()
    samples = [load_tokenizer(made).encode(text).ids for text in TEXTS]
    worker.open(
        opens, str(made), str(made / "W3.npz"), str(scratch), "cpu", "float32", (list(TEXTS), samples)
    )
    return worker


@pytest.mark.parametrize("name", [PLAIN, CACHED, RECOMPUTING, KEPT])
def test_every_peer_takes_the_bare_loops_step(made: Path, tmp_path: Path, name: str) -> None:
    """Loss, gradient and tokens, in both directions, several mini-batches or chunks a step."""
    (who,) = (one for one in CONTESTANTS if one.name == name)
    size = replace(ON_CPU, texts=(3,), chunks=(40,))
    found = {}
    for key, opens, settings in ((BARE, "bare.open_peer", {}), (name, who.opens, size.grid(who)[0])):
        worker = open_worker(made, opens, tmp_path)
        assert worker.peer is not None
        worker.peer.set(**settings)
        found[key] = worker.gate(None, str(tmp_path / f"{key}.npz"))
        assert found[key]["same_tokens"]
        assert not found[key]["causal"]
        taken = worker.step(settings, watch=True)
        assert taken["loss"] < found[key]["loss"]
        assert taken["real_tokens"] == worker.batch.lengths.sum() <= taken["positions"]
        assert taken["repeated"] == (taken["positions"] if key in (CACHED, RECOMPUTING) else 0)
    assert found[name]["loss"] == pytest.approx(found[BARE]["loss"], rel=1e-5)
    assert 1 - cosine(tmp_path / f"{name}.npz", tmp_path / f"{BARE}.npz") < 1e-6


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, []),
        ({"loss_difference": 2e-5}, ["its loss differs by 2.0e-05 and its gradient's cosine by 0.0e+00"]),
        ({"one_less_cosine": float("nan")}, ["its loss differs by 0.0e+00 and its gradient's cosine by nan"]),
        ({"causal": True}, ["its first token does not see the last"]),
        ({"same_tokens": False}, ["it was given other tokens"]),
    ],
)
def test_the_gate(changed: dict[str, Any], says: list[str]) -> None:
    passed = {"loss_difference": 0.0, "one_less_cosine": 0.0, "causal": False, "same_tokens": True}
    assert gate_faults(passed | changed, ON_CPU.gate) == says


def test_a_causal_peer_is_told(made: Path, tmp_path: Path) -> None:
    worker = open_worker(made, "bare.open_peer", tmp_path)
    assert worker.peer is not None
    worker.peer.backbone.config.is_causal = True  # type: ignore[union-attr]
    assert worker.gate(None, str(tmp_path / "causal.npz"))["causal"]


def test_a_chat_template_is_told(made: Path, tmp_path: Path) -> None:
    """sentence-transformers gives our ids on the checkpoint, and others where a template is left."""
    from tools.bench.peers.st import Trained

    source = save_tiny("llama", tmp_path / "chat")
    ids = [load_tokenizer(source).encode(text).ids for text in TEXTS]
    Trained(Given(made, tmp_path, "cpu", "float32"), cached=False).check_tokens(list(TEXTS), ids)
    with pytest.raises(ValueError, match="other token ids"):
        Trained(Given(source, tmp_path, "cpu", "float32"), cached=False).check_tokens(list(TEXTS), ids)


def test_adapters_without_a_partner_are_refused(made: Path, tmp_path: Path) -> None:
    worker = open_worker(made, "bare.open_peer", tmp_path)
    assert worker.peer is not None
    drawn = draw_lora(made, seed=1)
    assert all(torch.from_numpy(drawn[name]).equal(p) for name, p in adapters(worker.peer.model))
    drawn.pop("layers.0.mlp.up_proj.A")
    with pytest.raises(ValueError, match=r"1 adapters without a partner, first layers\.0\.mlp\.up_proj\.A"):
        fill_adapters(worker.peer.model, drawn)


def test_an_absent_peer_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        "folder": "",
        "workload": "",
        "scratch": "",
        "device": "cpu",
        "precision": "float32",
        "samples": [],
    }
    told_of = answer(Worker(), {"do": "open", "peer": "nobody.open_peer"} | asked)
    assert told_of["kind"] == "absent"
    assert "nobody" in told_of["error"]
    assert answer(Worker(), {"do": "step", "settings": {}})["kind"] == "failed"
    assert "Traceback" in capsys.readouterr().err


def test_a_gpus_grids() -> None:
    size = gpu_size("mistral_7b", None)
    grids = {one.name: size.grid(one) for one in CONTESTANTS}
    assert [one["mini_batch_size"] for one in grids[CACHED]] == [16, 32, 64, 128, 256]
    assert {one["keep_tokens"] for one in grids[RECOMPUTING]} == {0}
    assert len({one["keep_tokens"] for one in grids[KEPT]}) == len(grids[KEPT]) == 4
    assert grids[BARE] == [{}]
    assert size.shape("W1").rows == 1024


# --- the verdict --------------------------------------------------------------------------------------------


def made_up(seconds: dict[str, float], memory: dict[str, float]) -> dict[str, Any]:
    """Figures of a workload, before they are summarised."""
    return {
        "pairs": 4,
        "real_tokens": 100,
        "squares": 1_000,
        "contestants": {
            name: {
                "rounds": [
                    {"cpu": one * slow, "wall": one, "memory": memory.get(name, 1.0) * 1e9, "loss": 1.0}
                    for slow in (1.0, 1.1, 5.0)  # another load on the machine, for all alike
                ],
                "settings": {"mini_batch_size": 8} if name == CACHED else {},
                "positions": 100 if name in (RECOMPUTING, KEPT) else 150,
                "repeated": 150 if name == CACHED else 0,
                "squares": 10_000 if name in (RECOMPUTING, KEPT) else 2_000,
                "parameters": {"linear": 1_000, "lora": 100},
                "ceiling": {"cpu": 1e6, "wall": 1e6},
            }
            for name, one in seconds.items()
        },
    }


SECONDS = {BARE: 1.0, PLAIN: 2.0, CACHED: 2.5, RECOMPUTING: 1.25, KEPT: 1.0}


def summarised(seconds: dict[str, float], memory: dict[str, float] | None = None) -> dict[str, Any]:
    figures = made_up(seconds, memory or {})
    summarise(figures, "cpu", {"layers": 2, "attention": 8})
    return figures


def test_all_bounds_met() -> None:
    workloads = {name: summarised(SECONDS) for name in ("W1", "W3", "W4")}
    assert judge(workloads) == []
    assert list(unjudged(workloads)) == []
    assert workloads["W3"]["ratios"][KEPT][PLAIN] == {"rounds": [2.0, 2.0, 2.0], "median": 2.0}


@pytest.mark.parametrize(
    ("workload", "changed", "memory", "faults"),
    [
        ("W4", {CACHED: 2.4}, {}, 2),
        ("W3", {CACHED: 1.6}, {}, 1),
        ("W3", {}, {RECOMPUTING: 1.01}, 1),
        ("W3", {}, {KEPT: 9.0}, 0),
        ("W3", {PLAIN: 1.99}, {}, 1),
        ("W1", {BARE: 0.94}, {}, 1),
        ("W1", {CACHED: 0.1, PLAIN: 0.1}, {}, 0),
        ("W4", {KEPT: float("nan")}, {}, 2),
    ],
)
def test_a_missed_bound(
    workload: str, changed: dict[str, float], memory: dict[str, float], faults: int
) -> None:
    told_of = judge({workload: summarised(SECONDS | changed, memory)})
    assert len(told_of) == faults
    assert all(line.startswith(f"{workload}: ours ") for line in told_of)


def test_what_was_not_measured_is_not_judged() -> None:
    workloads = {"W3": summarised({BARE: 1.0, KEPT: 1.0})}
    assert judge(workloads) == []
    assert len(list(unjudged(workloads))) == len(BOUNDS)


def test_utilisation_counts_what_is_useful_and_what_is_done() -> None:
    figures = summarised(SECONDS)["contestants"]
    attention = 4 * 8 * 2
    useful = 4_600 * 100 + 3 * attention * 1_000
    seconds = 1.1
    assert figures[KEPT]["utilisation"]["useful"] == pytest.approx(useful / seconds / 1e6)
    assert figures[KEPT]["utilisation"]["hardware"] == pytest.approx(useful / seconds / 1e6)
    done = (4_600 + 2_200) * 150 + 4 * attention * 2_000
    assert figures[CACHED]["utilisation"]["hardware"] == pytest.approx(done / (2.5 * seconds) / 1e6)


def test_tables_are_whole() -> None:
    for table in (step_table, rate_table):
        columns, rows = table(summarised(SECONDS), "cpu")
        assert [row[0] for row in rows] == list(SECONDS)
        assert {len(row) for row in rows} == {len(columns)}
    assert told({"chunk_tokens": 512, "keep_tokens": 2**62}) == "chunk 512"
    assert told({}) is None


# --- the whole ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """Every step of the command on tiny random weights, a process a peer."""
    out = tmp_path / "step.json"
    words = ["--rehearse", "--workloads", "W3", "--threads", "1", "--work", str(tmp_path), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "tools/bench/train_step.py", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads(out.read_text())
    measured = written["workloads"]["W3"]["contestants"]
    assert set(measured) >= {BARE, PLAIN, CACHED, RECOMPUTING, KEPT}
    assert all(len(one["rounds"]) == 2 for one in measured.values())
    assert measured[KEPT]["positions"] == written["workloads"]["W3"]["real_tokens"]
    assert measured[BARE]["positions"] > measured[CACHED]["positions"]
    assert str(tmp_path) not in out.read_text()
    assert "| ours kept |" in out.with_suffix(".md").read_text()
    assert done.stdout.splitlines()[-1] == "no bounds at this size"
