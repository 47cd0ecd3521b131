"""The command line: `embedtrain check | plan | run | convert | mine | evaluate | soup` … No torch here."""

from embedtrain.cli import runs  # the commands in the order of --help

# isort: split
from embedtrain.cli import ablations, data, mining, models, reporting, serving, soups
from embedtrain.cli.app import app
from embedtrain.cli.ending import end
from embedtrain.show.quiet import is_quiet, silence

__all__ = ["ablations", "app", "data", "main", "mining", "models", "reporting", "runs", "serving", "soups"]


def main() -> None:
    """Run the command line."""
    end(quiet_app)


def quiet_app() -> None:
    """Run the command that is asked for, in silence where whoever started this process wants it."""
    with silence(wanted=is_quiet()):
        app()
