"""The application, and what its commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtrain.config.errors import UserError

if TYPE_CHECKING:
    from embedtrain.config.schema import Machine, Run

app = typer.Typer(
    help="Turn a decoder LLM into a text-embedding model: one config, many stages, one folder at the end.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Config = Annotated[Path, typer.Argument(help="run file (YAML)", show_default=False)]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", help="override a value: --set stages.finetune.lr=1e-5", show_default=False),
]
MachineFile = Annotated[
    Path | None,
    typer.Option("--machine", help="machine file (YAML); absent means one CPU process", show_default=False),
]


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """Values written as name=value."""
    for text in given:
        if "=" not in text:
            raise UserError(f"{option} {text}: expected name=value, for example query=title")
    return dict(text.split("=", 1) for text in given)


def read(
    config: Path, override: list[str] | None, machine: Path | None, starts: bool = False
) -> "tuple[Run, Machine]":
    """The run and the machine, checked; raises ConfigError with every fault at once."""
    from embedtrain.config.check import read_config
    from embedtrain.data.counts import count_rows
    from embedtrain.templates import validate_template

    return read_config(
        config,
        override or (),
        machine,
        count_rows=count_rows,
        validate_template=validate_template,
        starts=starts,
    )
