"""Tables of variants: one over all tasks, one for each family of tasks, each with its planted control.

A table whose control does not come out worse tells nothing: all its verdicts read "no power".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.ablation.paired import Difference, Seen, compare, mean_of
from embedtrain.ablation.setup import CONTROL, FULL
from embedtrain.evaluation.results import Result

NO_POWER = "no power"
ALL = "all tasks"
Measured = Mapping[str, Mapping[str, Seen]]
"""By variant and task."""


@dataclass(frozen=True)
class Family:
    """The variants on tasks of one kind, or on all, each less the full recipe."""

    title: str
    tasks: tuple[str, ...]
    means: Mapping[str, float]
    differences: Mapping[str, Difference]

    @property
    def num_seeds(self) -> int:
        """Of each variant."""
        return len(self.differences[CONTROL].by_seed)

    @property
    def has_power(self) -> bool:
        """Whether the planted control came out worse."""
        return self.differences[CONTROL].verdict == "worse"

    def verdict(self, variant: str) -> str:
        """Of a variant; none where the table has no power."""
        own = self.differences[variant].verdict
        return own if self.has_power or self.num_seeds < 2 else NO_POWER

    @property
    def detectable(self) -> tuple[float, float, float] | None:
        """The least true difference that is told apart four times of five: least, middle, greatest.

        Over all variants but the control.
        """
        found = [d.detectable for name, d in self.differences.items() if name != CONTROL]
        known = sorted(one for one in found if one is not None)
        return (known[0], float(np.median(known)), known[-1]) if known else None

    def says(self, control: str) -> Iterator[str]:
        """What the table can tell, in sentences."""
        if self.num_seeds < 2:
            yield "One seed: nothing can be said of what seeds explain, and no difference is claimed."
            return
        if self.detectable:
            least, middle, most = self.detectable
            reach = f" (from {least:.2f} to {most:.2f} over the rows)" if most > least else ""
            yield (
                f"Minimum detectable difference: {middle:.2f} points{reach}, found four times out of five "
                f"with {self.num_seeds} paired seeds."
            )
        planted = self.differences[CONTROL]
        if self.has_power:
            yield f"The planted control ({control}) is {-planted.mean:.2f} points worse: the table has power."
        else:
            yield (
                f"The planted control ({control}) is {planted.mean:+.2f} points from the full recipe, not "
                "worse beyond noise: the table has no power, and no verdict is given."
            )
        chance = 0.05 * (len(self.differences) - 1)
        yield f"Chance alone would put about {chance:.2g} of {len(self.differences) - 1} rows beyond noise."


def seen(results: Mapping[str, Sequence[Mapping[str, Result]]]) -> Measured:
    """By variant and task, the figures of all seeds; `results` are by variant: of each seed, by task."""
    return {
        variant: {task: gather([of_tasks[task] for of_tasks in of_seeds]) for task in of_seeds[0]}
        for variant, of_seeds in results.items()
    }


def gather(results: Sequence[Result]) -> Seen:
    """One task's results of all seeds."""
    figures = [result.figure for result in results]
    return Seen(np.array([f.value for f in figures]), np.array([f.draws for f in figures]))


def families(measured: Measured, kinds: Mapping[str, str]) -> list[Family]:
    """Over all tasks, then of each kind where there are several; `kinds` are by task."""
    groups = {kind: [task for task, own in kinds.items() if own == kind] for kind in kinds.values()}
    found = [family(ALL if len(kinds) > 1 else kinds[next(iter(kinds))], list(kinds), measured)]
    if len(groups) > 1:
        found += [family(kind, tasks, measured) for kind, tasks in groups.items()]
    return found


def family(title: str, tasks: Sequence[str], measured: Measured) -> Family:
    """Every variant less the full recipe on these tasks."""
    own = {name: {task: of_tasks[task] for task in tasks} for name, of_tasks in measured.items()}
    return Family(
        title,
        tuple(tasks),
        {name: mean_of(list(of_tasks.values())) for name, of_tasks in own.items()},
        {name: compare(of_tasks, own[FULL]) for name, of_tasks in own.items() if name != FULL},
    )
