"""How a command or a tool ends: with a status, and with one message for what went wrong."""

import sys
from collections.abc import Callable
from typing import NoReturn

from embedtrain.config.errors import UserError, disk_full_is_an_error, hide_passwords
from embedtrain.stops import INTERRUPTED


def end(main: Callable[[], int | None]) -> NoReturn:
    """Exit with what `main` returns; a user's mistake is one message and status 2, never a traceback."""
    try:
        with disk_full_is_an_error():
            status = main()
    except UserError as error:
        text = hide_passwords(str(error))
        print(text if "\n" in text else f"embedtrain: {text}", file=sys.stderr)
        status = getattr(error, "code", 2)
    except KeyboardInterrupt:
        print("embedtrain: interrupted; the same command goes on from where it was", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
