"""The loop: exact resume after a kill, the same numbers twice, stopping when asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from contrastive import tiny_folder
from processes import run_on
from safetensors.torch import load_file
from training import (
    SAVE_EVERY,
    STEPS,
    curve_of,
    fail_at,
    full_stage,
    parameters,
    same,
    shared_losses,
    sources,
    tiny_stage,
    train_tiny,
)

from embedtrain.artifacts import read_json
from embedtrain.collate import TeacherLookup
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.loss.learned import initial_parameters
from embedtrain.model.checkpoint import all_tensors, save_encoder
from embedtrain.model.encoder import Encoder, weights_hash
from embedtrain.model.load import open_encoder
from embedtrain.stops import Stopped
from embedtrain.train.checkpoint import load_checkpoint

Finished = tuple[Path, Encoder, dict[str, object]]
CHECKPOINTS = [f"step-{step:06d}" for step in (16, 18)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("uninterrupted")
    facts, encoder = train_tiny(tiny_folder(), folder, tiny_stage())
    return folder, encoder, facts


def wait_for_lines(path: Path, count: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert child.poll() is None, "the child ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def start_child(folder: Path) -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("training.py")
    root = str(program.parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, str(program), tiny_folder(), str(folder)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def test_resume_after_sigkill_is_the_uninterrupted_run(tmp_path: Path, uninterrupted: Finished) -> None:
    """A real process, really killed between two checkpoints; parameters and curve bit for bit."""
    whole, encoder, _ = uninterrupted
    child = start_child(tmp_path)
    wait_for_lines(tmp_path / "curve.jsonl", 2 * SAVE_EVERY + 2, child)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    killed_at = len(curve_of(tmp_path))
    assert killed_at < STEPS
    saved = sorted(folder.name for folder in (tmp_path / "checkpoints").glob("step-*"))
    assert saved
    assert int(saved[-1][5:]) < STEPS
    facts, resumed = train_tiny(tiny_folder(), tmp_path, tiny_stage())
    assert same(parameters(resumed), parameters(encoder))
    assert curve_of(tmp_path) == curve_of(whole)
    assert facts["steps"] == STEPS
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == CHECKPOINTS


def test_the_run_learns_and_says_so(uninterrupted: Finished) -> None:
    folder, _, facts = uninterrupted
    curve = curve_of(folder)
    assert [line["step"] for line in curve] == list(range(1, STEPS + 1))
    assert [line["source"] for line in curve].count("faq") == 12  # weights 2 : 1
    assert facts["tokens"] == sum(int(line["tokens"]) for line in curve)
    assert facts["swapped_rows"] == sum(int(line["swapped"]) for line in curve)
    assert float(str(facts["last_loss"])) < 0.9 * float(str(facts["first_loss"]))
    assert {"loss", "infonce", "lr", "gradient_norm"} <= curve[0].keys()
    assert [line["step"] for line in curve if "diagnostics/accuracy_at_1" in line] == [1, 6, 11, 16]


def test_the_temperature_is_learned_and_saved(tmp_path: Path, uninterrupted: Finished) -> None:
    """Beside the encoder, which is the same encoder without it."""
    whole, encoder, _ = uninterrupted
    curve = [float(line["infonce_temperature"]) for line in curve_of(whole)]
    assert curve[0] == pytest.approx(0.1, rel=1e-6)
    assert 0.05 < min(curve) < curve[0] - 1e-4 or curve[0] + 1e-4 < max(curve) < 0.2
    folder = save_encoder(encoder, tmp_path / "encoder")
    raw = encoder.learned["0_infonce_temperature"].detach()
    assert torch.equal(load_file(folder / "learned.safetensors")["0_infonce_temperature"], raw)
    assert not any("learned" in name for name, _ in all_tensors(encoder))
    back = open_encoder(folder)
    assert len(back.learned) == 0
    assert weights_hash(back) == weights_hash(encoder)


def test_same_run_twice(tmp_path: Path, uninterrupted: Finished) -> None:
    whole, encoder, _ = uninterrupted
    _, again = train_tiny(tiny_folder(), tmp_path, tiny_stage())
    assert curve_of(tmp_path) == curve_of(whole)
    assert same(parameters(again), parameters(encoder))


def test_a_causal_encoder_never_goes_on_from_a_bidirectional_ones_checkpoint(uninterrupted: Finished) -> None:
    """A checkpoint says what encoder it is of: base, attention, pooling, templates, adapters."""
    folder = uninterrupted[0] / "checkpoints" / CHECKPOINTS[-1]
    encoder = read_json(folder / "state.json")["encoder"]
    assert {"base", "base_revision", "base_sha256", "pooling", "text", "prompts"} <= encoder.keys()
    assert encoder["lora"]["rank"] == 4
    first = {"identity": "another", "encoder": encoder | {"attention": "causal"}}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(UserError) as error:
        load_checkpoint(folder, first, [], optimizer)
    assert str(error.value) == (
        f"{folder}: was made by another config, other rows or another model "
        f"(attention is bidirectional there and causal here); remove {folder.parent} to start anew"
    )


def test_it_goes_on_under_other_intervals(tmp_path: Path, uninterrupted: Finished) -> None:
    """When a training is saved and diagnosed changes no weight, so a checkpoint serves under all of them."""
    _, encoder, _ = uninterrupted
    with pytest.raises(InterruptedError):
        train_tiny(tiny_folder(), tmp_path, tiny_stage(), validate=fail_at(tmp_path, 8))
    stage = tiny_stage(save_every_steps=3, save_every_minutes=5.0, keep_last=1, diagnostics_every_steps=0)
    _, resumed = train_tiny(tiny_folder(), tmp_path, stage)
    assert same(parameters(resumed), parameters(encoder))
    assert [line["step"] for line in curve_of(tmp_path) if "diagnostics/accuracy_at_1" in line] == [1]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, uninterrupted: Finished) -> None:
    whole, _, _ = uninterrupted
    with pytest.raises(UserError) as error:
        train_tiny(tiny_folder(), whole, tiny_stage(lr=1e-4))
    assert str(error.value) == (
        f"{whole}/checkpoints/step-000018: was made by another config, other rows or another model; "
        f"remove {whole}/checkpoints to start anew"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_goes_on_later(
    tmp_path: Path, uninterrupted: Finished, number: signal.Signals
) -> None:
    whole, encoder, _ = uninterrupted
    before = signal.getsignal(number)
    asked = []

    def ask_once(encoder: Encoder) -> dict[str, float]:
        if not asked:
            asked.append(os.kill(os.getpid(), number))
        return {}

    with pytest.raises(Stopped) as error:
        train_tiny(tiny_folder(), tmp_path, tiny_stage(), validate=ask_once)
    assert str(error.value) == f"stopped at step 5 of {STEPS}; run the same command to resume"
    assert isinstance(error.value, UserError)
    assert signal.getsignal(number) == before
    assert (tmp_path / "checkpoints" / "step-000005" / "done.json").exists()
    _, resumed = train_tiny(tiny_folder(), tmp_path, tiny_stage())
    assert same(parameters(resumed), parameters(encoder))
    assert curve_of(tmp_path) == curve_of(whole)


def test_validation_at_each_checkpoint_changes_nothing(tmp_path: Path, uninterrupted: Finished) -> None:
    _, encoder, _ = uninterrupted
    modes = []

    def validate(encoder: Encoder) -> dict[str, float]:
        modes.append(encoder.training)
        return {"mean": float(encoder.encode(["how?"]).mean())}

    _, validated = train_tiny(tiny_folder(), tmp_path, tiny_stage(), validate=validate)
    curve = curve_of(tmp_path)
    assert [line["step"] for line in curve if "validation/mean" in line] == [4, 8, 12, 16, 18]
    assert modes == [False] * 5
    assert same(parameters(validated), parameters(encoder))


def test_a_fault_in_a_step_names_stage_step_source_and_term(tmp_path: Path) -> None:
    term = {"kind": "infonce", "in_batch_positives": False, "in_batch_negatives": False}
    stage = tiny_stage(objective={"terms": [term]}, num_negatives=0)
    with pytest.raises(UserError) as error:
        train_tiny(tiny_folder(), tmp_path, stage)
    assert str(error.value) == (
        "stage 'tune', step 1: source 'faq', term infonce: no query of the batch has a negative to be told "
        "from; switch in_batch_positives on, or give the rows negatives and set num_negatives"
    )


def test_a_projection_to_the_teachers_dims_is_learned(tmp_path: Path) -> None:
    """Each source has its lookup, all of one size."""
    term = {"kind": "embed_distill", "projection": True}
    stage = tiny_stage(objective={"terms": [term]}, steps=6)
    teachers = dict.fromkeys(sources(), of_dim(5))
    _, encoder = train_tiny(tiny_folder(), tmp_path / "one", stage, teachers=teachers)
    weight = encoder.learned["0_embed_distill_projection_weight"]
    assert weight.shape == (5, encoder.dim)
    start = initial_parameters(stage.objective, encoder.dim, 5, seed=7)["0_embed_distill_projection_weight"]
    assert 1e-3 < float((weight.detach() - start).abs().max()) < 0.1
    teachers = {"faq": of_dim(5), "manual": of_dim(6)}
    with pytest.raises(UserError) as error:
        train_tiny(tiny_folder(), tmp_path / "two", stage, teachers=teachers)
    assert str(error.value) == (
        "stage 'tune': the teachers' vectors have other dims: 5 of source 'faq', 6 of source 'manual'; "
        "expected one"
    )


def of_dim(dim: int) -> TeacherLookup:
    """A teacher whose vectors depend on the lengths of texts."""
    return lambda texts, side, instructions: np.sin(
        np.outer([len(text) for text in texts], np.arange(1, dim + 1)), dtype=np.float32
    )


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_two_processes_train_as_one(tmp_path: Path, tuning: str) -> None:
    """Loss, gradient norm and tokens of every step."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    expected = shared_losses(tiny_folder(), one, tuning)
    found, other = run_on(2, shared_losses, tiny_folder(), two, tuning)
    assert found == other
    for line, reference in zip(found, expected, strict=True):
        assert (line["tokens"], line["source"]) == (reference["tokens"], reference["source"])
        for name in ("loss", "gradient_norm"):
            assert line[name] == pytest.approx(reference[name], rel=1e-4)
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-5)


def test_chunks_and_checkpointing_do_not_change_the_result(tmp_path: Path) -> None:
    """One run, two machines: float32 without dropout."""
    stage = full_stage()
    machines = (Machine(chunk_tokens=10**6), Machine(chunk_tokens=100, activation_checkpointing=True))
    curves = []
    for place, machine in enumerate(machines):
        train_tiny(tiny_folder(), tmp_path / str(place), stage, machine=machine)
        curves.append(curve_of(tmp_path / str(place)))
    losses = [[float(line["loss"]) for line in curve] for curve in curves]
    assert np.allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
