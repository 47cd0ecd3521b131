"""Trackers follow the curve: each step once, whatever stopped the training, and none of them can stop it."""

import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from distilling import make_context
from processes import run_on
from tiny_models import save_tiny
from training import curve_of, full_stage, tiny_stage, train_tiny

from embedtrain.config import check
from embedtrain.config.check import machine_faults
from embedtrain.config.costs import GPUS
from embedtrain.config.errors import ConfigError
from embedtrain.config.load import load_machine
from embedtrain.config.schema import Base, EncoderConfig, Machine, TextFormat
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder
from embedtrain.stages import distil as distil_stage
from embedtrain.train.log import read_curve
from embedtrain.train.measures import Done, step_measures
from embedtrain.train.trackers import Trackers, finish, tracking

STEPS = 10
KILLED_AT = 8
BLOCK, WHOLE, END = 1 << 15, 1, 4  # of a .wandb file
Seen = dict[str, list[tuple[int, float]]]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny("llama", tmp_path_factory.mktemp("base")))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a user on a cluster without network sets it."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def machine(*trackers: str) -> Machine:
    return Machine(chunk_tokens=256, trackers=trackers)  # type: ignore[arg-type]


def train_and_break(model: str, folder: Path, *trackers: str, killed_at: int = KILLED_AT) -> None:
    """A training that ends without a word in a step, before that step's checkpoint, and is resumed."""
    calls = []

    def validate(encoder: Encoder) -> dict[str, float]:
        calls.append(1)
        if len(calls) == killed_at // 4:
            raise ZeroDivisionError
        return {}

    stage = tiny_stage(steps=STEPS)
    with pytest.raises(ZeroDivisionError):
        train_tiny(model, folder, stage, machine=machine(*trackers), validate=validate)
    assert len(read_curve(folder / "curve.jsonl")) == killed_at - 1
    saved = [path.name for path in (folder / "checkpoints").glob("*")]
    assert saved == [f"step-{step:06d}" for step in range(4, killed_at, 4)]
    train_tiny(model, folder, stage, machine=machine(*trackers))


def read_tensorboard(folder: Path) -> Seen:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file, a log as LevelDB writes it: pieces with sum, length and kind."""
    content, place, record = file.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (WHOLE, END):
            yield record
            record = b""


def read_wandb(folder: Path) -> Seen:
    """What all files of a wandb run hold, in the order in which `wandb sync` sends them."""
    from wandb.proto.wandb_internal_pb2 import Record

    seen: Seen = {}
    for file in sorted(folder.glob("offline-run-*/run-*.wandb")):
        for data in wandb_records(file):
            history = Record.FromString(data).history
            values = {"/".join(item.nested_key) or item.key: item.value_json for item in history.item}
            for name, value in values.items():
                seen.setdefault(name, []).append((int(values["_step"]), json.loads(value)))
    return seen


def read_trackio(folder: Path) -> list[int]:
    """Steps in Trackio's data base."""
    (file,) = folder.glob("*.db")
    with sqlite3.connect(file) as base:
        return [step for (step,) in base.execute("select step from metrics order by step")]


def test_tensorboard_shows_the_curve_through_a_resume(model: str, tmp_path: Path) -> None:
    train_and_break(model, tmp_path / "r/tune", "tensorboard")
    curve = read_curve(tmp_path / "r/tune/curve.jsonl")
    seen = read_tensorboard(tmp_path / "r/tune/tensorboard")
    for name in ("loss", "infonce", "lr", "gradient_norm", "tokens_per_second", "samples_per_second"):
        expected = [(int(line["step"]), pytest.approx(line[name], rel=1e-6)) for line in curve]
        assert seen[name] == expected, name
    assert len(curve) == STEPS
    assert {"peak_memory_bytes", "share/faq", "share/manual", "diagnostics/accuracy_at_1"} <= seen.keys()
    assert "mfu" not in seen  # of a GPU alone
    assert seen["share/faq"][-1][1] + seen["share/manual"][-1][1] == pytest.approx(1)
    tokens = sum(float(line["tokens"]) for line in curve if line["source"] == "faq")
    whole = sum(float(line["tokens"]) for line in curve)
    assert seen["share/faq"][-1][1] == pytest.approx(tokens / whole)


def test_tensorboard_shows_a_step_once_where_no_checkpoint_was_saved(model: str, tmp_path: Path) -> None:
    """Killed before the first one, it begins anew: three steps were written already."""
    train_and_break(model, tmp_path / "r/tune", "tensorboard", killed_at=4)
    assert len(list((tmp_path / "r/tune/tensorboard").iterdir())) == 2  # the premise: both starts wrote
    curve = read_curve(tmp_path / "r/tune/curve.jsonl")
    expected = [(int(line["step"]), pytest.approx(line["loss"], rel=1e-6)) for line in curve]
    assert read_tensorboard(tmp_path / "r/tune/tensorboard")["loss"] == expected
    assert len(curve) == STEPS


def test_wandb_is_told_each_step_once(model: str, tmp_path: Path) -> None:
    train_and_break(model, tmp_path / "r/tune", "wandb")
    curve = read_curve(tmp_path / "r/tune/curve.jsonl")
    folder = tmp_path / "r/tune/wandb"
    runs = list(folder.glob("offline-run-*"))
    assert {path.name.rpartition("-")[2] for path in runs} == {runs[0].name.rpartition("-")[2]}  # one id
    seen = read_wandb(folder)
    assert seen["loss"] == [(line["step"], line["loss"]) for line in curve]
    assert len(seen["loss"]) == STEPS


def test_trackio_is_told_each_step_once(model: str, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    train_and_break(model, tmp_path / "r/tune", "trackio")
    assert read_trackio(tmp_path / "trackio") == list(range(1, STEPS + 1))


def test_a_curve_is_the_same_with_trackers(model: str, tmp_path: Path) -> None:
    train_tiny(model, tmp_path / "without", tiny_stage(steps=4), machine=machine())
    train_tiny(model, tmp_path / "with", tiny_stage(steps=4), machine=machine("tensorboard"))
    assert curve_of(tmp_path / "with") == curve_of(tmp_path / "without")
    assert not (tmp_path / "without/tensorboard").exists()


def test_a_tracker_that_cannot_start_is_dropped(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is logged in, and a file stands where event files would go."""
    import wandb

    wandb.teardown()  # it reads its variables once
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    (tmp_path / "r").mkdir()
    (tmp_path / "r/tensorboard").write_text("")
    train_tiny(model, tmp_path / "r", tiny_stage(steps=2), machine=machine("tensorboard", "wandb"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tracker ")]
    assert [line.partition(":")[0] for line in lines] == ["tracker tensorboard", "tracker wandb"]
    assert all(line.endswith("; the training goes on, and curve.jsonl has every step") for line in lines)
    assert len(read_curve(tmp_path / "r/curve.jsonl")) == 2


class Breaking:
    """A tracker whose network goes away after two steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.closed = 0

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if len(self.steps) == 2:
            raise ConnectionError("https://me:word@host is gone\nand more")
        self.steps.append(step)

    def close(self) -> None:
        self.closed += 1


def test_a_tracker_that_fails_later_is_dropped_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    trackers, broken, whole = Trackers(), Breaking(), Breaking()
    whole.steps = [0] * 9
    trackers.add("broken", lambda: broken)
    trackers.add("whole", lambda: whole)
    for step in range(1, 6):
        trackers.log({"step": step, "loss": 1.0})
    trackers.close()
    assert (broken.steps, broken.closed) == ([1, 2], 0)
    assert (whole.steps[9:], whole.closed) == ([1, 2, 3, 4, 5], 1)
    assert capsys.readouterr().err == (
        "tracker broken: dropped, ConnectionError: https://[hidden]@host is gone; the training goes on, and "
        "curve.jsonl has every step\n"
    )


def test_a_tracker_that_never_ends_is_left() -> None:
    from threading import Event

    never = Event()
    with pytest.raises(TimeoutError, match=r"it was still sending after 0\.1 s"):
        finish(never.wait, "slow", 0.1)  # type: ignore[arg-type]
    never.set()
    with pytest.raises(OSError, match="gone"):
        finish(lambda: (_ for _ in ()).throw(OSError("gone")), "broken")


def opened(folder: str) -> list[str]:
    """Names of the trackers that this process has."""
    with tracking(tiny_stage(), machine("tensorboard"), Path(folder), 0) as trackers:
        return list(trackers.open)


def test_the_first_process_alone_speaks(tmp_path: Path) -> None:
    assert run_on(2, opened, str(tmp_path)) == [["tensorboard"], []]


def test_a_missing_package_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine_faults(machine("tensorboard", "wandb")) == []
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    told = [(fault.location, fault.text) for fault in machine_faults(machine("tensorboard", "wandb"))]
    assert told == [
        (("trackers", n), f"'{name}' is not installed here: pip install 'embedtrain[{name}]'")
        for n, name in enumerate(("tensorboard", "wandb"))
    ]
    (tmp_path / "m.yaml").write_text("trackers: [tensorbord]\n")
    with pytest.raises(
        ConfigError, match=r"trackers\[0\]: found 'tensorbord' \(text\), expected 'tensorboard'"
    ):
        load_machine(tmp_path / "m.yaml")


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_useful_utilisation_by_hand(model: str, tuning: str) -> None:
    """Against the products of the tiny Llama, counted matrix by matrix."""
    from embedtrain.train.measures import useful_utilisation

    class Job:
        encoder = load_encoder(Base(model=model), EncoderConfig(), TextFormat())
        stage = tiny_stage() if tuning == "lora" else full_stage()
        machine = Machine(device="cuda", gpu="h100")

    done = Done(rows=8, texts=20, tokens=400, seconds=0.5, processes=2)
    d, kv, m, layers = 32, 16, 64, 3
    products = layers * (2 * d * d + 2 * d * kv + 3 * d * m)
    attention = 4 * layers * (400 / 20) * d
    ranks = layers * 4 * (2 * (d + d) + 2 * (d + kv) + 3 * (d + m))
    weights = 2 * products if tuning == "full" else 6 * ranks
    token = 4 * products + 3 * attention + weights
    expected = 400 * token / (0.5 * 2 * GPUS["h100"].float32)
    assert useful_utilisation(Job(), done) == pytest.approx(expected)
    Job.machine = Machine()
    assert useful_utilisation(Job(), done) is None
    measured = step_measures(Job(), done)
    assert measured.keys() == {"samples_per_second", "peak_memory_bytes"}
    assert measured["samples_per_second"] == 16
    assert measured["peak_memory_bytes"] > 50e6


def test_a_distil_stage_is_tracked(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    context = replace(context, machine=context.machine.model_copy(update={"trackers": ("tensorboard",)}))
    distil_stage.run_stage(context)
    curve = read_curve(context.folder / "curve.jsonl")
    seen = read_tensorboard(context.folder / "tensorboard")
    assert seen["loss"] == [(int(line["step"]), pytest.approx(line["loss"], rel=1e-6)) for line in curve]
    ends = [line for line in curve if "validation/cosine" in line]
    assert ends
    assert [step for step, _ in seen["validation/cosine"]] == [line["step"] for line in ends]
    assert "samples_per_second" in seen
