"""Which checkpoints go into a soup, and how much of each: pure functions of scores and losses.

K checkpoints, numbered in the order in which they were given.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Together = Callable[[tuple[int, ...]], float]
"""The score of the uniform average of these checkpoints."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the greedy choice: a checkpoint, the score of the average with it, the score to reach."""

    number: int
    score: float
    to_reach: float | None

    @property
    def kept(self) -> bool:
        """Whether it stays; the first one always does."""
        return self.to_reach is None or self.score >= self.to_reach


def greedy(scores: Sequence[float], together: Together) -> list[Step]:
    """The steps of a greedy soup, best checkpoint first; of equal scores the one given first comes first.

    A checkpoint stays where the uniform average of those kept, with it, scores no lower than without it
    (Wortsman et al. 2022, recipe 1).
    """
    first, *others = sorted(range(len(scores)), key=lambda number: -scores[number])
    steps, best = [Step(first, scores[first], None)], scores[first]
    for number in others:
        step = Step(number, together((*kept_numbers(steps), number)), best)
        steps.append(step)
        best = step.score if step.kept else best
    return steps


def kept_numbers(steps: Sequence[Step]) -> tuple[int, ...]:
    """The checkpoints that stay, in the order in which they came in."""
    return tuple(step.number for step in steps if step.kept)


def cocktail_weights(losses: Sequence[float], temperature: float) -> tuple[float, ...]:
    """softmax(-loss / temperature) over the checkpoints (LM-Cocktail, arXiv:2311.13534); they sum to one."""
    lowest = min(losses)
    parts = [math.exp((lowest - loss) / temperature) for loss in losses]
    return tuple(part / math.fsum(parts) for part in parts)
