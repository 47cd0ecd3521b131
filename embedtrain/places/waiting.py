"""Waiting for the files of other processes, for as long as these live."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from embedtrain.places.place import ENDED, Places, here, read_places

LOOK_SECONDS = 5.0
"""Between two looks at where the others are."""


class Stalled(RuntimeError):
    """A process for whose files this one waits gives no sign of life."""


def wait_for(
    paths: Iterable[Path],
    *,
    arrived: Callable[[Path], object] = lambda path: None,
    poll_seconds: float = 0.05,
) -> None:
    """Return once every file is there, which other processes make; `arrived` is called with each.

    The launcher ends all processes when one fails. Raises RuntimeError where the launcher itself was killed,
    so that no process waits for ever, and Stalled where another one stands still for the machine's timeout.
    """
    parent = os.getppid()
    for path in paths:
        if not path.exists():
            await_one(path, poll_seconds, parent)
        arrived(path)


def await_one(path: Path, poll_seconds: float, parent: int) -> None:
    """Return once this file is there; raises as `wait_for` does."""
    patience = Patience.of_this()
    while not path.exists():
        if os.getppid() != parent:
            raise RuntimeError(f"what started this process has ended; {path} will never come")
        if patience is not None:
            patience.check(path)
        time.sleep(poll_seconds)


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Alone among processes that lock the same file; Stalled as `wait_for` raises it."""
    lock, patience = FileLock(path), Patience.of_this()
    while True:
        try:
            lock.acquire(timeout=-1 if patience is None else patience.every)
            break
        except Timeout:
            if patience is not None:
                patience.check(Path(path))
    try:
        yield
    finally:
        lock.release()


class Patience:
    """With other processes: it ends where one of them gives no sign of life for too long.

    One that has ended needs to give none, unless it is `needed` to the end. A time in which this process
    stood still too does not count.
    """

    def __init__(self, own: Places, ranks: Iterable[int], *, needed: bool = False) -> None:
        """Begin to look at those of these ranks; `every` is the seconds between two looks."""
        self.own, self.every, self.looked = own, min(LOOK_SECONDS, own.seconds / 4), time.monotonic()
        self.needed, found = needed, {place.rank: place for place in read_places(own.stage)}
        self.last = {rank: found.get(rank) for rank in ranks}
        self.silent = dict.fromkeys(self.last, 0.0)

    @classmethod
    def of_this(cls) -> "Patience | None":
        """With all other processes of this one's stage; None for one that works alone."""
        if (own := here()) is None:
            return None
        world = int(os.environ.get("WORLD_SIZE", "1"))
        return cls(own, [rank for rank in range(world) if rank != own.now.rank])

    def check(self, wanted: Path) -> None:
        """Raises Stalled, which names who gives no sign of life, where it was, and what is waited for."""
        passed = time.monotonic() - self.looked
        if passed < self.every:
            return
        self.looked += passed
        found = {place.rank: place for place in read_places(self.own.stage)}
        for rank, last in self.last.items():
            now = self.last[rank] = found.get(rank, last)
            has_ended = now is not None and now.what == ENDED
            if has_ended and now != last and self.needed:
                raise Stalled(f"process {rank} has ended")
            lives = now != last or (has_ended and not self.needed)
            self.silent[rank] = 0.0 if lives else self.silent[rank] + min(passed, 2 * self.every)
        if told := [self.describe(rank) for rank, gone in self.silent.items() if gone > self.own.seconds]:
            raise Stalled(f"{'; '.join(told)}; process {self.own.now.rank} waits for {wanted}")

    def describe(self, rank: int) -> str:
        """Since when a process is silent, and where it was."""
        place = self.last[rank]
        if place is None:
            return f"process {rank} has not come for {self.own.seconds:g} s"
        silent = f"process {rank} gives no sign of life for {self.own.seconds:g} s"
        return f"{silent}; it was last at {place.describe()}"
