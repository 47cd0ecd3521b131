"""What a format is known by: the first record of a path, and the files of a folder."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from embedtrain.data.formats.files import is_data_file
from embedtrain.data.formats.hub import is_saved
from embedtrain.data.formats.record import Record
from embedtrain.data.formats.request import Request
from embedtrain.data.problems import Problems


@dataclass(frozen=True, slots=True)
class Sample:
    """The first record, if the path has records, and the names of the files in a folder."""

    path: Path
    first: Record | None = None
    names: tuple[str, ...] = ()
    problems: Problems = field(default_factory=Problems)  # met on the way to the first record

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the first record, in their order."""
        return tuple(self.first.values) if self.first else ()

    def has(self, *keys: str) -> bool:
        """Whether the first record has all these keys."""
        return set(keys) <= set(self.keys)

    def has_any(self, keys: Iterable[str]) -> bool:
        """Whether the first record has one of these keys."""
        return not set(keys).isdisjoint(self.keys)

    def files(self, *patterns: str) -> list[str]:
        """Files of the folder whose names match one of the patterns."""
        return [name for name in self.names if any(fnmatch(name, pattern) for pattern in patterns)]


def take_sample(request: Request) -> Sample:
    """What detection looks at. Raises UserError where there is no such path."""
    folder = request.folder
    names = folder_names(folder) if folder.is_dir() else ()
    aside = Problems()
    looking = Request(request.path, aside, columns=request.columns, split=request.split)
    first = None
    if not names or is_saved(folder) or any(is_data_file(folder / name) for name in names):
        first = next(looking.records(), None)
    return Sample(folder, first, names, aside)


def folder_names(folder: Path) -> tuple[str, ...]:
    """Visible files of a folder and of the folders right below it, as relative names, sorted."""
    found = [*folder.glob("*"), *folder.glob("*/*")]
    names = (str(entry.relative_to(folder)) for entry in found if entry.is_file())
    return tuple(sorted(name for name in names if not name.startswith(".")))
