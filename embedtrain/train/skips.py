"""Steps whose loss or gradient is no number: skipped, told with their rows, and the end where they go on.

A skipped step leaves parameters and optimizer as they were, so what a batch spoils is that batch. All
processes decide on averaged figures, hence alike. Steps in a row are limited, not those of a whole training:
bad rows come now and then for as long as it lasts, and a training that has diverged skips every step.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.dist import current
from embedtrain.train.checkpoint import State
from embedtrain.train.log import Figures, append_curve, cut_curve

SKIPPED = "skipped.jsonl"
REMEDY = "mend them, lower lr, raise warmup_fraction, or train in float32"
RowIds = Mapping[str, Sequence[int]]
"""Numbers of rows by what they are counted in: a source, or a distil stage's texts."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step on the rows of a `source` came to, averaged over processes."""

    step: int
    source: str
    loss: float
    norm: float

    @property
    def is_number(self) -> bool:
        """Whether the step may change the parameters."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)

    def describe(self) -> str:
        """The figures, for a person."""
        return f"the loss is {self.loss:.6g} and the gradient norm {self.norm:.6g}"


@dataclass
class Skips:
    """Counts of skipped steps, kept in the training's `state`: a resumed one counts on."""

    stage: str
    limit: int
    folder: Path
    state: State

    @property
    def file(self) -> Path:
        """A line a skipped step."""
        return self.folder / SKIPPED

    def resume(self) -> "Skips":
        """Drop the lines of steps that are about to be done again."""
        if current().rank == 0 and self.file.exists():
            cut_curve(self.file, int(self.state["step"]))
        return self

    def judge(self, outcome: Outcome, rows: Callable[[], RowIds]) -> bool:
        """Whether the step is to be taken; one that is not is told, with its rows.

        Raises UserError where more steps in a row were skipped than the stage allows.
        """
        if outcome.is_number:
            self.state.pop("skipped_in_a_row", None)
            return True
        for name in ("skipped", "skipped_in_a_row"):
            self.state[name] = self.state.get(name, 0) + 1
        if current().rank == 0:
            append_curve(self.file, line_of(outcome, rows()))
        in_a_row = self.state["skipped_in_a_row"]
        if in_a_row > self.limit:
            skipped = f"{in_a_row} steps in a row were" if in_a_row > 1 else "it was"
            where = f"stage '{self.stage}', step {outcome.step}, source '{outcome.source}'"
            raise UserError(
                f"{where}: {outcome.describe()}; "
                f"{skipped} skipped (max_skipped_steps: {self.limit}); the rows are in {self.file}; {REMEDY}"
            )
        if current().rank == 0:
            print(
                f"step {outcome.step}: skipped, {outcome.describe()}; its rows are in {self.file}",
                file=sys.stderr,
            )
        return False

    def mark(self, figures: Figures) -> Figures:
        """A skipped step's line of the curve: how many were skipped so far, and only what is a number."""
        numbers = {name: x for name, x in figures.items() if not isinstance(x, float) or math.isfinite(x)}
        return numbers | {"skipped": int(self.state["skipped"])}

    def check_trained(self, steps: int) -> None:
        """Raise UserError where no step of the whole stage was taken."""
        if self.state.get("skipped", 0) >= steps:
            raise UserError(
                f"stage '{self.stage}': all {steps} steps were skipped, for no loss was a number; "
                f"the rows are in {self.file}; {REMEDY}"
            )


def line_of(outcome: Outcome, rows: RowIds) -> dict[str, object]:
    """A line of `skipped.jsonl`; what is no number is written as text."""
    figures = {"loss": outcome.loss, "gradient_norm": outcome.norm}
    shown = {name: x if math.isfinite(x) else str(x) for name, x in figures.items()}
    ids = {name: [int(number) for number in numbers] for name, numbers in rows.items()}
    return {"step": outcome.step, "source": outcome.source, "rows": ids, **shown}
