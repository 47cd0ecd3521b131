"""What a process wishes for once a step is done, by its clock and the signals it got."""

import time
from dataclasses import astuple, dataclass, field

from embedtrain.dist import current


@dataclass(frozen=True, slots=True)
class Wishes:
    """What any process wishes for is done on all of them: the step's one message brings it to the others."""

    stop: bool = False
    save: bool = False
    validate: bool = False

    def numbers(self) -> list[float]:
        """To be averaged over processes."""
        return [float(wish) for wish in astuple(self)]

    @classmethod
    def of_all(cls, means: list[float]) -> "Wishes":
        """The wishes of all, of the averages."""
        return cls(*(mean > 0 for mean in means))


@dataclass
class Clock:
    """Tells the first process, and it alone, that so many minutes have passed; never where there are none."""

    minutes: float | None
    since: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        """Whether they have."""
        passed = self.minutes is not None and time.monotonic() - self.since >= 60 * self.minutes
        return passed and current().rank == 0

    def restart(self) -> None:
        """Count from now."""
        self.since = time.monotonic()
