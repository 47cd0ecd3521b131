"""What several processes make together in a folder, without a word to each other but files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedtrain.artifacts import read_json, write_json
from embedtrain.dist import Processes
from embedtrain.places import FOLDER, wait_for

Facts = dict[str, Any]


def first_makes(path: Path, processes: Processes, make: Callable[[Path], object]) -> Path:
    """The file or folder, which the first process makes aside; the others wait. One that is there stays."""
    if processes.rank == 0 and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.partial")
        make(aside)
        aside.replace(path)
    wait_for([path])
    return path


def leave(folder: Path, processes: Processes, facts: Facts) -> list[Facts]:
    """Say in the stage's folder that this process has done its share, and what it did.

    The first process gets what all did, once all have said so. Like all that processes tell of themselves,
    what they said is gone when the stage is started anew.
    """
    marks = [folder / FOLDER / f"left-{rank}.json" for rank in range(processes.world)]
    write_json(marks[processes.rank], facts)
    if processes.rank != 0:
        return []
    wait_for(marks)
    return [facts, *map(read_json, marks[1:])]
