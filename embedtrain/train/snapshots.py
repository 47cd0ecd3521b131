"""Encoders kept on the way: `snapshots/step-000150/`, whole checkpoints for soups and exports."""

import shutil
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.config.stages import Train
from embedtrain.dist import current
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.train.place import whole_weights

SNAPSHOTS = "snapshots"


def snapshot_folder(stage_folder: Path, step: int) -> Path:
    """Where the encoder after that many steps is."""
    return stage_folder / SNAPSHOTS / f"step-{step:06d}"


def check_snapshots(stage: Train, steps: int) -> None:
    """Raise UserError where a snapshot is asked for after the last step."""
    if late := [step for step in stage.snapshot_steps if step > steps]:
        raise UserError(
            f"stage '{stage.name}': snapshot_steps holds {late[0]}, but the rows make {steps} steps; "
            "lower it or train for longer"
        )


def save_snapshot(encoder: Encoder, stage_folder: Path, step: int) -> None:
    """The first process writes the encoder aside, then renames: a folder of that name is whole.

    A resumed training comes through the same step again and writes the same bytes.
    """
    with whole_weights(encoder):
        if current().rank == 0:
            folder = snapshot_folder(stage_folder, step)
            aside = folder.with_name(f".{folder.name}.partial")
            for old in (aside, folder):
                shutil.rmtree(old, ignore_errors=True)
            save_encoder(encoder, aside).rename(folder)
