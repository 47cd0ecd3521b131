"""What is read of a model folder that somebody else made: safetensors and JSON, in it and nowhere else."""

from dataclasses import dataclass
from pathlib import Path

from embedtrain.artifacts import leads_inside, read_json
from embedtrain.average.files import INDEX, read_index
from embedtrain.config.errors import UserError

MODULES = "modules.json"
SAFE = {"adapter_model": ("adapter_model.safetensors",), "": ("model.safetensors", INDEX)}
"""By how a pickle's name begins: the files, one of which a reader takes instead of it."""


@dataclass(frozen=True, slots=True)
class Module:
    """One entry of modules.json: the class with its package, and the folder of its files."""

    type: str
    path: str

    @property
    def kind(self) -> str:
        """The class alone."""
        return self.type.rpartition(".")[2]


def read_modules(folder: Path) -> list[Module]:
    """The modules of a sentence-transformers folder, in order.

    Raises UserError where the file lists none, or one that lies outside the folder.
    """
    file = folder / MODULES
    try:
        modules = [Module(str(entry["type"]), entry["path"]) for entry in read_json(file)]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{file}: expected a list of objects with 'type' and 'path'") from None
    for module in modules:
        check_place(folder, module.path, file)
    return modules


def check_place(folder: Path, path: object, listed_in: Path) -> None:
    """Raise UserError where a module's path, or a link on it, leads out of the folder."""
    if not leads_inside(folder, path):
        raise UserError(f"{listed_in}: module '{path}' lies outside the folder")


def check_weights(folder: Path) -> None:
    """Raise UserError where weights are stored as a pickle and not as safetensors, or outside the folder."""
    if (folder / INDEX).is_file():
        read_index(folder / INDEX)
    for pickle in sorted(path.name for path in folder.glob("*.bin")):
        start = next(start for start in SAFE if pickle.startswith(start))
        if not any((folder / name).is_file() for name in SAFE[start]):
            raise UserError(
                f"{folder}: weights are in {pickle}, a pickle, which can run code when read; "
                "only safetensors are read: convert the file first"
            )
