"""Import every room that needs no torch, and check every shipped run and machine file, on this Python.

    make check-light LIGHT=python3.12

Exits 1 and names what failed. For a Python that has no torch build at hand: what answers at once still must.
"""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.config.load import load_machine

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    *("cli", "pipeline", "standalone", "config", "data", "text", "templates", "mixture", "serving"),
    *("artifacts", "places", "show", "stops"),
)
ABSENT = ("torch", "transformers", "peft", "accelerate", "sentence_transformers")


def import_rooms() -> int:
    """Import all modules of the rooms; their number."""
    names = [f"embedtrain.{room}" for room in ROOMS]
    for room in list(names):
        path = getattr(importlib.import_module(room), "__path__", [])
        names += [found.name for found in pkgutil.walk_packages(path, f"{room}.")]
    for name in names:
        importlib.import_module(name)
    if loaded := [name for name in ABSENT if name in sys.modules]:
        raise UserError(f"a room without torch imported {', '.join(loaded)}")
    return len(names)


def check_configs() -> int:
    """`embedtrain check` of every shipped run, with every machine file read; their number."""
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    machines = [file for file in files if file.parent.name == "machines"]
    for file in machines:
        load_machine(file)
    runs = [str(file) for file in files if file not in machines]
    for run in runs:
        subprocess.run([sys.executable, "-m", "embedtrain", "check", run], cwd=ROOT, check=True)
    return len(files)


def main() -> None:
    """Do both, and say so."""
    try:
        rooms, files = import_rooms(), check_configs()
    except (UserError, ImportError, subprocess.CalledProcessError) as error:
        sys.exit(f"light rooms: {error}")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"light rooms: {rooms} modules import and {files} configs hold on Python {version}")


if __name__ == "__main__":
    main()
