"""Ctrl-C and SIGTERM end the loop after its current step; a second one ends the process at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from embedtrain.config.errors import UserError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(UserError):
    """Asked to stop, and stopped where it can go on; the pipeline tells it from a failure by its code."""

    code = 75


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that is set by the first signal. Outside the main thread signals stay as they are."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
