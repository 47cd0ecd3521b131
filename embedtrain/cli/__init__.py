"""The command line: `embedtrain check | plan | run | convert | mine | evaluate | soup` … No torch here."""

import sys

from embedtrain.cli import runs  # the commands in the order of --help

# isort: split
from embedtrain.cli import ablations, data, mining, models, reporting, serving, soups
from embedtrain.cli.app import app
from embedtrain.config.errors import UserError, disk_full_is_an_error, hide_passwords
from embedtrain.show.quiet import is_quiet, silence
from embedtrain.stops import INTERRUPTED

__all__ = ["ablations", "app", "data", "main", "mining", "models", "reporting", "runs", "serving", "soups"]


def main() -> None:
    """Run the command line: a user's mistake is one clear message and exit code 2, never a traceback."""
    try:
        with disk_full_is_an_error(), silence(wanted=is_quiet()):
            app()
    except UserError as error:
        text = hide_passwords(str(error))
        print(text if "\n" in text else f"embedtrain: {text}", file=sys.stderr)
        sys.exit(getattr(error, "code", 2))
    except KeyboardInterrupt:
        print("embedtrain: interrupted; the same command goes on from where it was", file=sys.stderr)
        sys.exit(INTERRUPTED)
