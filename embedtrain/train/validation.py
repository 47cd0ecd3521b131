"""When a training is validated, and which of its encoders is the best so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from embedtrain.config.validating import Validating
from embedtrain.dist import mean_over_processes
from embedtrain.model.encoder import Encoder
from embedtrain.train.best import keep_best, remove_beaten, restore_best
from embedtrain.train.checkpoint import Named, State
from embedtrain.train.log import Figures
from embedtrain.train.wishes import Clock

Validate = Callable[[Encoder], dict[str, float]]
"""Figures of an encoder by name; `mean`, the more the better, is what the best one has the most of."""


@dataclass
class Validation:
    """`validate` as often as a stage says; `best_step` and `best_mean` of the state are of the best so far.

    Every process measures and comes to the same figures, so that all keep the same encoder.
    """

    validate: Validate | None
    asked: Validating | None
    folder: Path
    named: Named
    state: State
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        """Count minutes from now."""
        self.clock = Clock(self.asked.every_minutes if self.asked else None)

    @property
    def keeps_best(self) -> bool:
        """Whether the stage's encoder is that of the best validation."""
        return self.asked is not None and self.asked.keep_best

    def is_due(self, step: int, asked: bool, saved: bool) -> bool:
        """Whether to validate after a step: one that was `asked` for, or one that is `saved`."""
        if self.validate is None or self.asked is None:
            return self.validate is not None and saved
        every = self.asked.every_steps
        return asked or (every is not None and step % every == 0)

    def run(self, encoder: Encoder, step: int) -> Figures:
        """What `validate` measures, under names of their own; the best encoder is kept where asked."""
        assert self.validate is not None
        encoder.eval()
        measured = self.validate(encoder)
        encoder.train()
        self.clock.restart()
        if self.keeps_best:
            self.note(step, measured["mean"])
        return {f"validation/{name}": value for name, value in measured.items()}

    def note(self, step: int, mean: float) -> None:
        """Keep the parameters of a step that is better than all before."""
        mean = float(mean_over_processes(torch.tensor(mean, dtype=torch.float64)))
        if "best_mean" not in self.state or mean > self.state["best_mean"]:
            self.state |= {"best_step": step, "best_mean": mean}
            keep_best(self.folder, step, self.named)

    def remove_beaten(self) -> None:
        """Once a checkpoint is saved: remove what no checkpoint calls the best."""
        if self.keeps_best:
            remove_beaten(self.folder)

    def restore_best(self) -> dict[str, Any]:
        """Put the best parameters back; facts on them, none where the last are kept."""
        if not self.keeps_best:
            return {}
        step = self.state["best_step"]
        restore_best(self.folder, step, self.named)
        return {"best": {"step": step, "mean": self.state["best_mean"]}}
