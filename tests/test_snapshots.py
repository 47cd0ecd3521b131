"""Snapshots of a training: the encoder after a step, whole or absent, the same after a resume."""

from pathlib import Path

import pytest
from contrastive import tiny_folder
from training import STEPS, curve_of, tiny_stage, train_tiny

from embedtrain.artifacts import hash_folder, list_files
from embedtrain.config.errors import UserError
from embedtrain.model.checkpoint import all_tensors, save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import open_encoder
from embedtrain.train.snapshots import snapshot_folder

STAGE = tiny_stage(snapshot_steps=[6, STEPS])  # checkpoints every 4


def snapshots(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "snapshots").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    _, encoder = train_tiny(tiny_folder(), folder, STAGE)
    save_encoder(encoder.eval(), folder / "encoder")
    return folder


def test_a_snapshot_is_the_encoder_of_its_step(tmp_path: Path, whole: Path) -> None:
    assert snapshots(whole) == ["snapshots/step-000006", f"snapshots/step-{STEPS:06d}"]
    assert hash_folder(snapshot_folder(whole, STEPS)) == hash_folder(whole / "encoder")

    class Reached(Exception):
        pass

    def stop(encoder: Encoder) -> dict[str, float]:
        save_encoder(encoder, tmp_path / "seen")
        raise Reached

    with pytest.raises(Reached):  # the same training, looked at after step 6
        train_tiny(tiny_folder(), tmp_path / "run", tiny_stage(save_every_steps=6), validate=stop)
    seen, kept = (dict(all_tensors(open_encoder(f))) for f in (tmp_path / "seen", snapshot_folder(whole, 6)))
    assert seen.keys() == kept.keys()
    assert all(seen[name].equal(kept[name]) for name in seen)
    last = dict(all_tensors(open_encoder(whole / "encoder")))
    assert any(not last[name].equal(kept[name]) for name in last)  # the premise: it went on learning


def test_a_resumed_training_leaves_the_same_snapshots(tmp_path: Path, whole: Path) -> None:
    def die(encoder: Encoder) -> dict[str, float]:
        if snapshot_folder(tmp_path, 6).exists():
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tiny_folder(), tmp_path, STAGE, validate=die)
    assert len(curve_of(tmp_path)) == 7  # died in step 8, after the snapshot of step 6
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000004"]
    (snapshot_folder(tmp_path, 6) / "adapter.safetensors").write_bytes(b"half")
    snapshot_folder(tmp_path, 6).with_name(".step-000006.partial").mkdir()
    train_tiny(tiny_folder(), tmp_path, STAGE)
    assert snapshots(tmp_path) == snapshots(whole)
    assert {p.name for p in list_files(snapshot_folder(tmp_path, 6))} >= {"encoder.json", "tokenizer.json"}
    for name in snapshots(whole):
        assert hash_folder(tmp_path / name) == hash_folder(whole / name)


def test_a_snapshot_after_the_last_step_is_refused_before_the_first(tmp_path: Path) -> None:
    stage = tiny_stage(steps=None, epochs=1.0, snapshot_steps=[3, 900])
    with pytest.raises(
        UserError,
        match=r"^stage 'tune': snapshot_steps holds 900, but the rows make \d+ steps; lower it or train for",
    ):
        train_tiny(tiny_folder(), tmp_path, stage)
    assert not (tmp_path / "curve.jsonl").exists()
