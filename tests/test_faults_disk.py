"""A full disk, for real: one message with the path and the bytes; what was saved before stays, and serves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from contrastive import tiny_folder
from exports import tiny_export
from faulted_runs import partial_of, run, told, write_run
from small_disks import grow, growing_disk
from training import curve_of, parameters, same, tiny_stage, train_tiny

from embedtrain.artifacts import folder_bytes
from embedtrain.config.errors import UserError
from embedtrain.data.store.arrays import make_array
from embedtrain.train.checkpoint import newest_checkpoint
from embedtrain.train.log import append_curve

MIB = 2**20


def test_a_checkpoint_that_does_not_fit_leaves_those_before(tmp_path: Path) -> None:
    """The same training goes on once there is room, as the one that always had it."""
    stage = tiny_stage(keep_last=9, save_every_steps=2, steps=8)
    _, encoder = train_tiny(tiny_folder(), tmp_path / "whole", stage)
    size = folder_bytes(tmp_path / "whole" / "checkpoints" / "step-000002")
    with growing_disk(tmp_path / "disk", int(2.5 * size)) as disk:
        with pytest.raises(UserError) as error:
            train_tiny(tiny_folder(), disk / "run", stage)
        root = disk / "run" / "checkpoints"
        found = re.fullmatch(
            rf"{root}/step-000006: no space left to write it, ([\d,]+) bytes are free and ([\d,]+) are "
            "needed; make room and run again",
            str(error.value),
        )
        assert found, error.value
        free, needed = (int(number.replace(",", "")) for number in found.groups())
        assert free < needed < size
        assert sorted(path.name for path in root.iterdir()) == ["step-000002", "step-000004"]
        assert newest_checkpoint(root) == (root / "step-000004", [])
        grow(disk, 20 * size)
        _, again = train_tiny(tiny_folder(), disk / "run", stage)
        assert same(parameters(again), parameters(encoder))
        assert curve_of(disk / "run") == curve_of(tmp_path / "whole")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_curve_that_does_not_fit_is_named() -> None:
    with pytest.raises(UserError) as error:
        append_curve(Path("/dev/full"), {"step": 1, "loss": 2.5})
    assert re.fullmatch(
        r"/dev/full: no space left to write it, [\d,]+ bytes are free and 25 are needed; make room and run "
        r"again",
        str(error.value),
    )


def test_an_array_takes_its_room_at_once(tmp_path: Path) -> None:
    """A page that cannot be given, written later, would end the process by SIGBUS."""
    with growing_disk(tmp_path / "disk", MIB) as disk:
        make_array(disk / "small.npy", "float32", (1000, 8))[:] = 1
        with pytest.raises(UserError) as error:
            make_array(disk / "large.npy", "float32", (100_000, 8))
        assert not (disk / "large.npy").exists()
    assert re.fullmatch(
        rf"{disk}/large.npy: no space left to write it, [\d,]+ bytes are free and 3,200,128 are needed; make "
        "room and run again",
        str(error.value),
    )


def embedtrain(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedtrain", *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_encode_on_a_full_disk(tmp_path: Path) -> None:
    _, model = tiny_export(tmp_path)
    (tmp_path / "texts.txt").write_text("a line\n" * 20_000)
    with growing_disk(tmp_path / "disk", MIB) as disk:
        out = disk / "vectors.npy"
        done = embedtrain("encode", str(model), "--texts", str(tmp_path / "texts.txt"), "--out", str(out))
        assert list(disk.iterdir()) == []
    assert done.returncode == 2, done.stderr
    assert re.search(
        rf"(?m)^embedtrain: {out}.partial: no space left to write it, [\d,]+ bytes are free and [\d,]+ are "
        "needed; make room and run again$",
        done.stderr,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_stage_that_cannot_leave_its_encoder_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """The steps are not done again."""
    tuning = {"tuning": "full", "steps": 2, "save_every_steps": 2, "keep_last": 1}
    with growing_disk(tmp_path / "disk", 4 * MIB) as disk:
        config = write_run(tmp_path, tuning, {"num_processes": 1}, place=disk)
        ballast = disk / "ballast"
        checkpoint = 3 * (tmp_path / "model" / "model.safetensors").stat().st_size
        ballast.write_bytes(bytes(max(0, 4 * MIB - checkpoint - 64 * 2**10)))
        assert run(config) == 2
        folder = partial_of(config)
        first, second = [line for line in told(config).splitlines() if line.startswith("embedtrain: ")]
        assert re.fullmatch(
            rf"embedtrain: {folder}: no space left to write it, [\d,]+ bytes are free; make room and run "
            "again",
            first,
        )
        assert second == f"embedtrain: stage 'tune' (train) failed, see above; its folder is {folder}"
        assert (folder / "checkpoints" / "step-000002" / "done.json").exists()
        ballast.unlink()
        assert run(config) == 0
        assert "from step 2" in told(config)
