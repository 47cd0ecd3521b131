"""Which models a run's stages use, and their shapes: from disk or the shipped table, never from a network."""

import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from embedtrain.artifacts import cache_folder, read_json
from embedtrain.config.distilling import Distil
from embedtrain.config.load import find_stage
from embedtrain.config.references import snapshot, teacher_of
from embedtrain.config.schema import Run
from embedtrain.config.shapes import Shape, known_shape, read_shape
from embedtrain.config.soups import Soup
from embedtrain.config.stages import Export, Train
from embedtrain.config.tuning import Lora

CONFIGS = ("config.json", "0_Transformer/config.json")
ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a run: its shape, None where unknown; the precision of its weights; dims of its vectors.

    `lora` are adapters that it has, `folded` says that the weights below them are no longer the base's.
    """

    name: str
    shape: Shape | None
    precision: str
    dims: int | None
    lora: Lora | None = None
    folded: bool = False

    @property
    def adapters(self) -> int:
        """Numbers of its adapters."""
        return self.shape.adapters(self.lora) if self.shape and self.lora else 0


@cache
def find_shape(model: str) -> Shape | None:
    """The shape of a folder, package or hub id: from its config.json where it is on disk, else the table."""
    folder = local_folder(model)
    return (shape_in(folder) if folder else None) or known_shape(model)


def local_folder(model: str) -> Path | None:
    """Where a model is on disk; None where it would have to be fetched."""
    if model.startswith("pip:"):
        name, _, version = model.removeprefix("pip:").partition("==")
        places = [cache_folder("models") / f"{name}-{version}"]
    else:
        places = [Path(model).expanduser(), *hub_folders(model)]
    return next((place for place in places if place.is_dir()), None)


def hub_folders(model: str) -> list[Path]:
    """Copies of a hub id that huggingface_hub has fetched before, the newest first."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache_root = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    found = cache_root.joinpath(f"models--{model.replace('/', '--')}", "snapshots").glob("*")
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


def shape_in(folder: Path) -> Shape | None:
    """The shape that a folder's config.json tells, or that of the base of a PEFT adapter."""
    if (folder / ADAPTER).is_file() and not (folder / CONFIGS[0]).is_file():
        base = read_mapping(folder / ADAPTER).get("base_model_name_or_path")
        return known_shape(base) if isinstance(base, str) else None
    path = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    return read_shape(read_mapping(path)) if path else None


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file cannot be read."""
    try:
        value = read_json(path)
    except (OSError, ValueError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def base_model(run: Run) -> Model:
    """The model that a run starts from, cut as it says."""
    shape = find_shape(run.base.model)
    shape = shape.cut(run.base.keep_first_layers) if shape else None
    return Model(run.base.model, shape, run.precision, shape.hidden if shape else None)


def outside_model(name: str, precision: str = "float32") -> Model:
    """A model from outside the run."""
    shape = find_shape(name)
    return Model(name, shape, precision, shape.hidden if shape else None)


def model_of(run: Run, name: str) -> Model:
    """The model that `base`, a stage of the run, `NAME@STEP`, or a name from outside stands for."""
    stage_name, _ = snapshot(name)
    if stage_name == "base":
        return base_model(run)
    if stage_name not in {stage.name for stage in run.stages}:
        return outside_model(name)
    stage = find_stage(run, stage_name)
    match stage:
        case Train():
            return tuned(model_of(run, stage.from_), stage)
        case Distil():
            return distilled(run, stage)
        case Soup():
            made = model_of(run, stage.from_[0])
            return replace(made, name=stage.name, lora=None, folded=True, precision="float32")
        case Export():
            start = model_of(run, stage.from_)
            return replace(start, name=stage.name, precision=stage.precision, lora=None, folded=True)
    return Model(name, None, run.precision, None)


def tuned(start: Model, stage: Train | Distil) -> Model:
    """A model after training: with adapters of its own, or with all weights changed, then float32."""
    if stage.tuning == "full":
        return replace(start, name=stage.name, lora=None, folded=True, precision="float32")
    folded = start.folded or (start.lora is not None and start.lora != stage.lora)
    return replace(start, name=stage.name, lora=stage.lora, folded=folded)


def distilled(run: Run, stage: Distil) -> Model:
    """A student, whose vectors have its teacher's dims where it is projected."""
    student = tuned(model_of(run, stage.from_), stage)
    if stage.projection == "none":
        return student
    named = teacher_of(stage)
    teacher = model_of(run, named[1].model) if named else None
    return replace(student, dims=teacher.dims if teacher else None, lora=None, folded=True)
