"""How work is asked to stop, and what it ends with then: for who asks and who is asked. No torch here.

`embedtrain run` hears Ctrl-C, SIGTERM and SIGUSR1 (what SLURM sends before it takes a machine away) and asks
a training by a file in its folder; a training that was started by itself hears the signals.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from embedtrain.config.errors import UserError

if TYPE_CHECKING:
    import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STOPPABLE, STOP = ".stoppable", ".stop"
"""In the folder of a stage at work: it can stop where it goes on later; it is asked to."""
RESUME_CODE = 75
"""EX_TEMPFAIL: nothing is lost, and the same command goes on."""
INTERRUPTED = 130
"""What a shell calls a command that Ctrl-C has ended."""

STARTER = "EMBEDTRAIN_STARTER"
"""In the environment: the process id of the command or launcher of ours that started this one."""
LAUNCHED = "TORCHELASTIC_RUN_ID"
"""In the environment of what torch.distributed.run starts, as accelerate launch does too."""
PR_SET_PDEATHSIG = 1

Handler = Callable[[int, FrameType | None], None]


class Stopped(UserError):
    """Asked to stop, and stopped where the same command goes on."""

    code = RESUME_CODE


def as_its_starter() -> dict[str, str]:
    """The environment of a process that is to be killed when this one is."""
    return {**os.environ, STARTER: str(os.getpid())}


def die_with_starter() -> None:
    """Where Linux can: this process is killed when the one of ours, or the launcher, that started it is.

    So that nothing of a run goes on in a folder that the same command, given again, works in. One that was
    started by hand outlives its shell.
    """
    by_hand = 0 if LAUNCHED not in os.environ else os.getppid()
    if (starter := int(os.environ.pop(STARTER, by_hand))) == 0:
        return
    if os.getppid() == starter:
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == starter:
        return
    import psutil  # not before it is needed: every command imports this file

    if not any(lives(one) for one in psutil.process_iter() if one.pid == starter):
        signal.raise_signal(signal.SIGKILL)  # it was killed a moment ago


def lives(process: "psutil.Process") -> bool:
    """Whether the process holds anything yet: one that only its parent has to ask for does not."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def hearing(handler: Handler) -> Iterator[None]:
    """Signals go to the handler; outside the main thread they stay as they are."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in SIGNALS} if here else {}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
