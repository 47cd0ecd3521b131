"""Which texts each step learns, at what learning rate, and after which steps it is validated: pure numbers.

Epochs follow each other without a gap, in an order of their own, so every batch is full; a batch on the edge
of two epochs has texts of both. B texts in the global batch.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from embedtrain.config.distilling import Distil
from embedtrain.config.stages import Schedule
from embedtrain.train.schedule import lr_factor


@dataclass(frozen=True)
class Cycles:
    """The steps of a distil stage over `num_texts` texts, which are at least as many as a batch holds."""

    num_texts: int
    stage: Distil
    seed: int

    @cached_property
    def steps_per_cycle(self) -> int:
        """Steps until the learning rate starts anew."""
        return self.steps_of(self.stage.epochs_per_cycle)

    def steps_of(self, epochs: float) -> int:
        """Steps that come nearest to so many epochs, at least 1."""
        return max(1, round(epochs * self.num_texts / self.stage.batch_size))

    def __len__(self) -> int:
        """Steps in all."""
        return self.stage.cycles * self.steps_per_cycle

    def texts(self, step: int) -> np.ndarray:
        """int64 (B): numbers of the texts of a step, counted from 0."""
        size = self.stage.batch_size
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), self.num_texts)
        return np.concatenate(
            [
                epoch_order(self.seed, epoch, self.num_texts)[places[epochs == epoch]]
                for epoch in np.unique(epochs).tolist()
            ]
        )

    def lr_factor(self, step: int) -> float:
        """What `lr` is multiplied by: each cycle falls linearly, the first after its warm-up."""
        cycle, within = divmod(step, self.steps_per_cycle)
        warmup = self.stage.warmup_fraction if cycle == 0 else 0.0
        schedule = Schedule(kind="linear", warmup_fraction=warmup, final_fraction=self.stage.final_fraction)
        return lr_factor(schedule, within, self.steps_per_cycle)

    @cached_property
    def epoch_ends(self) -> frozenset[int]:
        """Steps within a cycle, counted from 1, that end an epoch of it or the cycle."""
        whole = range(1, int(self.stage.epochs_per_cycle) + 1)
        return frozenset([*map(self.steps_of, whole), self.steps_per_cycle])

    def is_validated(self, done: int) -> bool:
        """Whether the student is validated once so many steps are done."""
        return (done - 1) % self.steps_per_cycle + 1 in self.epoch_ends

    @property
    def cycle_ends(self) -> list[int]:
        """Steps done at the end of each cycle."""
        return [cycle * self.steps_per_cycle for cycle in range(1, self.stage.cycles + 1)]


@lru_cache(maxsize=3)
def epoch_order(seed: int, epoch: int, num_texts: int) -> np.ndarray:
    """The order of the texts in one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(num_texts)
