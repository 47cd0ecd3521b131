"""Checkpoints that were damaged: passed over, removed, and never in the way of those that come after."""

import time
from pathlib import Path

import pytest
import torch
from contrastive import tiny_folder
from processes import run_on
from torch.nn import Parameter
from training import curve_of, fail_at, parameters, same, tiny_stage, train_tiny

from embedtrain.dist import current
from embedtrain.model.encoder import Encoder
from embedtrain.train import checkpoint
from embedtrain.train.checkpoint import State, resume_training, save_checkpoint

Finished = tuple[Path, Encoder]
NEWEST = [f"step-{step:06d}" for step in (18, 16)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, train_tiny(tiny_folder(), folder, tiny_stage())[1]


def damage(file: Path) -> None:
    """Change a byte."""
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def saved(folder: Path) -> list[str]:
    """What lies among the checkpoints."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_damaged_checkpoints_are_passed_over(
    tmp_path: Path, uninterrupted: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oldest of three is gone on from."""
    whole, encoder = uninterrupted
    stage = tiny_stage(keep_last=3)
    train_tiny(tiny_folder(), tmp_path, stage)
    checkpoints = tmp_path / "checkpoints"
    newest, older = (checkpoints / name for name in NEWEST)
    (newest / "done.json").unlink()
    damage(older / "optimizer.safetensors")
    (checkpoints / ".step-000019.partial").mkdir()
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 19, "lo')
    capsys.readouterr()
    _, again = train_tiny(tiny_folder(), tmp_path, stage)
    said = capsys.readouterr().err
    assert f"{newest}: passed over, it has no done.json" in said
    assert f"{older}: passed over, optimizer.safetensors is damaged" in said
    assert "train tune from step 12: 6 steps" in said
    assert not (checkpoints / ".step-000019.partial").exists()
    assert same(parameters(again), parameters(encoder))
    assert curve_of(tmp_path) == curve_of(whole)


@pytest.mark.parametrize("keep_last", [1, 2])
def test_what_a_training_saves_that_begins_anew_stays(
    tmp_path: Path, uninterrupted: Finished, keep_last: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is kept was damaged; the new ones have smaller steps."""
    whole, encoder = uninterrupted
    stage = tiny_stage(keep_last=keep_last)
    train_tiny(tiny_folder(), tmp_path, stage)
    assert saved(tmp_path) == sorted(NEWEST[:keep_last])  # the premise
    for name in NEWEST[:keep_last]:
        damage(tmp_path / "checkpoints" / name / "parameters.safetensors")
    with pytest.raises(InterruptedError):
        train_tiny(tiny_folder(), tmp_path, stage, validate=fail_at(tmp_path, 8))
    assert saved(tmp_path) == ["step-000004"]
    assert capsys.readouterr().err.count(": passed over, parameters.safetensors is damaged") == keep_last
    _, again = train_tiny(tiny_folder(), tmp_path, stage)
    assert "train tune from step 4: 14 steps" in capsys.readouterr().err
    assert same(parameters(again), parameters(encoder))
    assert curve_of(tmp_path) == curve_of(whole)


Small = tuple[State, list[tuple[str, Parameter]], torch.optim.Optimizer]


def small(step: int) -> Small:
    """A training of two numbers."""
    named = [("w", Parameter(torch.full((2,), float(step))))]
    first = {"step": step, "identity": "one", "encoder": {}}
    return first, named, torch.optim.SGD([p for _, p in named])


def resumed(folder: Path) -> tuple[float, list[str]]:
    """The number that is gone on from, and what is left there; the second process reads slowly."""
    true_hash = checkpoint.hash_file

    def slow_hash(path: Path | str) -> str:
        time.sleep(0.5 * current().rank)
        return true_hash(path)

    state, named, optimizer = small(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "hash_file", slow_hash)
        state = resume_training(folder, state, named, optimizer)
    assert named[0][1].tolist() == [state["step"]] * 2
    return float(state["step"]), saved(folder)


@pytest.mark.parametrize("whole", [(1, 2), (1,), ()])
def test_two_processes_choose_the_same_and_lose_none_they_still_read(
    tmp_path: Path, whole: tuple[int, ...]
) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path / "checkpoints", *small(step), keep_last=3)
        if step not in whole:
            damage(tmp_path / "checkpoints" / f"step-{step:06d}" / "state.json")
    left = [f"step-{step:06d}" for step in whole]
    assert run_on(2, resumed, tmp_path) == [(float(max(whole, default=0)), left)] * 2
