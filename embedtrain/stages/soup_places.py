"""Where the models are that people name in a soup."""

from pathlib import Path

from embedtrain.config.errors import UserError, near_file
from embedtrain.config.inputs import PACKAGE
from embedtrain.config.references import snapshot
from embedtrain.model.source import resolve_model
from embedtrain.train.snapshots import snapshot_folder

INSIDE = ("encoder", "model")
MARKS = ("encoder.json", "modules.json", "adapter_config.json")


def find_model(name: str) -> Path:
    """The folder with the weights: itself, or that of a stage's folder or `FOLDER@STEP`, or a package's.

    Raises UserError where nothing is there.
    """
    if PACKAGE.match(name):
        return resolve_model(name).path
    folder = Path(name).expanduser()
    stage, step = snapshot(name)
    if step is not None and not folder.is_dir():
        folder = snapshot_folder(Path(stage).expanduser(), step)
    if not folder.is_dir():
        raise UserError(f"{name}: {folder} is not there{near_file(folder)}")
    places = (folder, *(folder / inside for inside in INSIDE))
    return next((place for place in places if holds_model(place)), folder)


def holds_model(folder: Path) -> bool:
    """Whether a folder says that it is a model's."""
    return any((folder / mark).is_file() for mark in MARKS)
