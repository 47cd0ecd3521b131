"""The Python API: what `from embedtrain import ...` gives."""

from pathlib import Path

from embedtrain.config.check import check_run
from embedtrain.config.errors import ConfigError
from embedtrain.config.load import load_run
from embedtrain.config.schema import Machine, Run
from embedtrain.data.counts import count_rows
from embedtrain.model.encoder import Encoder
from embedtrain.pipeline import run_stages
from embedtrain.templates import validate_template

__all__ = ["Encoder", "load_run", "run"]


def run(run: Run, machine: Machine | None = None) -> Path:
    """Do every stage that is not done yet, each in its own process; returns the run's folder.

    Calling again resumes. Raises ConfigError with all that is wrong with the run before anything starts, and
    UserError where a stage cannot go on.
    """
    name = f"run '{run.name}'"
    wrong = check_run(run, name, count_rows=count_rows, validate_template=validate_template)
    if wrong:
        raise ConfigError(wrong)
    return run_stages(run, machine or Machine(), name)
