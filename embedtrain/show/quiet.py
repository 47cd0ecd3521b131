"""Silence: nothing but errors, here and in every process that is started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

QUIET = "EMBEDTRAIN_QUIET"
"""Tells a process that another one started for it to be silent; it changes no result."""


def is_quiet() -> bool:
    """Whether whoever started this process wants silence."""
    return bool(os.environ.get(QUIET))


@contextmanager
def silence(*, wanted: bool) -> Iterator[None]:
    """Drop what is printed, where that is wanted; an error that ends the block is told after it."""
    if not wanted:
        yield
        return
    os.environ[QUIET] = "1"
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
