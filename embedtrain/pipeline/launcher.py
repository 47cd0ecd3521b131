"""Starts processes by another program, which writes what it says of itself into a file.

`python -m embedtrain.pipeline.launcher FILE MODULE ARGUMENT…`. torch.distributed.run ends the other processes
where one fails, and tells of it in some 60 lines; what its processes say comes through as it is.
"""

import os
import runpy
import sys
from pathlib import Path

from embedtrain.stops import as_its_starter, die_with_starter


def main() -> None:
    """Run the module as the program that it is."""
    die_with_starter()
    os.environ.update(as_its_starter())
    file, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    sys.stderr = Path(file).open("a", buffering=1)  # noqa: SIM115
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
