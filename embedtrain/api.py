"""The Python API: what `from embedtrain import ...` gives."""

from pathlib import Path

from embedtrain.config.load import load_run
from embedtrain.config.schema import Machine, Run
from embedtrain.model.encoder import Encoder
from embedtrain.pipeline import run_stages

__all__ = ["Encoder", "load_run", "run"]


def run(run: Run, machine: Machine | None = None) -> Path:
    """Do every stage that is not done yet, each in its own process; returns the run's folder.

    Raises UserError where the run cannot go on; calling again resumes it.
    """
    return run_stages(run, machine or Machine(), f"run '{run.name}'")
