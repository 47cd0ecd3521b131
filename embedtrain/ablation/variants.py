"""A run and changes to it: each variant as the overrides that make it, checked before anything starts."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embedtrain.ablation.shorthands import expand
from embedtrain.config.check import read_config
from embedtrain.config.distilling import Distil
from embedtrain.config.errors import ConfigError, UserError
from embedtrain.config.faults import Location
from embedtrain.config.load import document, validate
from embedtrain.config.reader import Place, read_mapping
from embedtrain.config.references import inputs_of
from embedtrain.config.schema import Run
from embedtrain.config.stages import AnyStage, Train
from embedtrain.data.counts import count_rows
from embedtrain.templates import validate_template

OPENING, CLOSING = "[{(", ")}]"
SEED_STEP = 1000  # between the seeds of a stage that has one of its own


@dataclass(frozen=True)
class Variant:
    """A change to the run: as it was asked for, and as overrides of the run file."""

    name: str
    changes: tuple[str, ...]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class RunFile:
    """The run file, what is common to all variants, and the machine file."""

    path: Path
    common: tuple[str, ...]
    machine: Path | None

    def check(self, overrides: Sequence[str]) -> Run:
        """The run with these overrides. Raises ConfigError with all that is wrong with it."""
        run, _ = read_config(
            self.path,
            [*self.common, *overrides],
            self.machine,
            count_rows=count_rows,
            validate_template=validate_template,
            starts=True,
        )
        return run

    def load(self, overrides: Sequence[str]) -> Run:
        """The same, by its schema alone."""
        data, places = self.content
        return validate(document(deepcopy(data), places, self.path, [*self.common, *overrides]), Run)

    @cached_property
    def content(self) -> tuple[dict[str, Any], dict[Location, Place]]:
        """What the file holds, and where; reading YAML takes longer than all else."""
        return read_mapping(self.path)

    def variant(self, name: str, changes: Sequence[str]) -> Variant:
        """The overrides of all changes, each read in the run that those before it make.

        Raises ConfigError, each message led by the variant's name.
        """
        asked = tuple(change for text in changes for change in split_changes(text))
        overrides: list[str] = []
        try:
            for change in asked:
                overrides += expand(self.load(overrides), change)
            self.check(overrides)
        except ConfigError as error:
            raise ConfigError(f"variant '{name}': {text}" for text in error.messages) from None
        except UserError as error:
            raise ConfigError([f"variant '{name}': {error}"]) from None
        return Variant(name, asked, tuple(overrides))


def split_changes(text: str) -> list[str]:
    """The changes in a text: parted by commas or spaces that stand in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if not quote and not depth and (sign == "," or sign.isspace()):
            parts.append("")
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += 0 if quote else (sign in OPENING) - (sign in CLOSING)
        parts[-1] += sign
    return [part for part in parts if part]


def seed_overrides(run: Run, seed: int, seeded: Sequence[str] | None) -> list[str]:
    """What makes a run that of a seed: of the whole run, or of the stages named.

    A stage with a seed of its own keeps its distance to the others: 1000 x seed + its own.
    """
    stages = [stage for stage in run.stages if isinstance(stage, Train | Distil)]
    if seeded is None:
        chosen, found = [stage for stage in stages if stage.seed is not None], [f"seed={seed}"]
    else:
        chosen, found = [stage for stage in stages if stage.name in seeded], []
    for stage in chosen:
        own = seed if stage.seed is None else SEED_STEP * seed + stage.seed
        found.append(f"stages.{stage.name}.seed={own}")
    return found


def behind(run: Run, name: str) -> list[AnyStage]:
    """The stage of that name and all that it is made of, in the order of the run."""
    needed = {name}
    for stage in reversed(run.stages):
        if stage.name in needed:
            needed.update(inputs_of(run, stage))
    return [stage for stage in run.stages if stage.name in needed]


def cut_run(run: Run, model: str, folder: str) -> Run:
    """The run as far as `model` needs it, in another folder, without links."""
    stages = [
        stage.model_copy(update={"link": None}) if stage.kind == "export" else stage
        for stage in behind(run, model)
    ]
    return run.model_copy(update={"folder": folder, "stages": tuple(stages)})
