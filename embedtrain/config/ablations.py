"""An ablation file: a run, the changes to make to it one at a time, and the seeds to do each with."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from embedtrain.config.load import document, read_document, validate
from embedtrain.config.types import AtLeastOne, Count, Str, Strict

CONTROL = "temperature=0.5"


class Ablation(Strict):
    """A run, its variants and its seeds: every variant is trained with every seed."""

    run: Str = Field(description="the run file: the full recipe")
    model: Str | None = Field(
        None,
        description="the export stage that is measured; absent means the one with `link: model`, or the last",
    )
    data: tuple[Str, ...] = Field(
        (), description="test data; absent means those of the run's first evaluate stage"
    )
    max_tokens: AtLeastOne | None = Field(
        None, description="cut the tasks to fixed subsets of about this many tokens in all"
    )
    seeds: tuple[Count, ...] = Field((1, 2, 3, 4, 5), min_length=1, description="at least 2 for a verdict")
    seeded: tuple[Str, ...] | None = Field(
        None,
        description="the stages whose seed changes; absent means the run's seed, and so every stage's",
    )
    set_: tuple[Str, ...] = Field(
        (), alias="set", description="overrides common to all, as for `--set`: path=value"
    )
    vary: dict[Str, tuple[Str, ...]] = Field(
        default_factory=dict, description="by the variant's name, its changes: path=value, or a shorthand"
    )
    control: tuple[Str, ...] = Field(
        (CONTROL,), min_length=1, description="changes that must come out worse, or nothing is told"
    )


def read_ablation(path: Path | str, given: Mapping[str, Any]) -> tuple[Ablation, str]:
    """The ablation in a file, or of a run file by what is given alone, and its name.

    What is given wins over the file; overrides in `set` come after the file's. Raises ConfigError with all
    faults.
    """
    read = read_document(path)
    data, given = dict(read.data), dict(given)
    if "stages" in data:
        name = str(data.get("name", Path(path).stem))
        return validate(document({"run": str(path), **given}, {}, path), Ablation), name
    if isinstance(data.get("set"), list):
        given["set"] = [*data["set"], *given.get("set", ())]
    return validate(replace(read, data=data | given), Ablation), Path(path).stem
