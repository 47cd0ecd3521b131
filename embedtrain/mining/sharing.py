"""What several processes make together in a folder, without a word to each other but files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedtrain.artifacts import read_json, write_json
from embedtrain.dist import Processes
from embedtrain.places import wait_for

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
    """Say that this process needs nothing more of the folder, and what it did.

    The first process gets what all did, once all have said so. The launcher's process id tells those of this
    launch from those of an earlier one that was killed.
    """
    marks = [folder / f"left-{os.getppid()}-{rank}.json" for rank in range(processes.world)]
    write_json(marks[processes.rank], facts)
    if processes.rank != 0:
        return []
    wait_for(marks)
    return [facts, *map(read_json, marks[1:])]
