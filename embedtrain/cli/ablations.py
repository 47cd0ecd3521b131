"""Ablations: what each technique of a run is worth."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from embedtrain.cli.app import MachineFile, Override, app

SEVERAL = ("--vary", "--seeds", "--seeded", "--control", "--data")


class TakesSeveral(TyperCommand):
    """A command whose options of several values take all that follow: `--seeds 1 2 3`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write the option before each of its values, as click reads them."""
        told: list[str] = []
        option, waits = "", False
        for arg in args:
            if arg in SEVERAL:
                option, waits = arg, True
            elif arg.startswith("-"):
                option, waits = "", False
            elif option and not waits:
                told.append(option)
            else:
                waits = False
            told.append(arg)
        return super().parse_args(ctx, told)


@app.command(
    cls=TakesSeveral,
    epilog="Examples: `embedtrain ablate configs/quickstart.yaml --vary soup=off attention=causal "
    "--seeds 1 2 3`, `embedtrain ablate ablations/finetune.yaml`. Stop it at any time; the same command goes "
    "on from there.",
)
def ablate(
    config: Annotated[
        Path, typer.Argument(help="run file, or ablation file (YAML); it comes first", show_default=False)
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="one variant each: path=value as for --set, or a shorthand (focal=off …); several changes "
            "of one variant with commas between",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="absent: 1 2 3 4 5", show_default=False)] = None,
    seeded: Annotated[
        list[str] | None, typer.Option(help="stages whose seed changes; absent: the run's seed")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="changes that must come out worse; absent: temperature=0.5", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="export stage that is measured; absent: the linked or last one")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="test data; absent: those of the run's evaluate stage")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="cut the tasks to subsets of about this many tokens in all")
    ] = None,
    override: Override = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for ablation.json, .md, .svg, .html; absent: where it works")
    ] = None,
    keep_models: Annotated[
        bool, typer.Option(help="keep exports and soups that were measured; they are large")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="show what would be done; start nothing")] = False,
    machine: MachineFile = None,
) -> None:
    """Train a run's variants with several seeds and say what each change is worth, with error bars."""
    from embedtrain.ablation.setup import Asked, prepare
    from embedtrain.config.ablations import read_ablation
    from embedtrain.config.load import load_machine

    given = {
        "vary": {name: [name] for name in vary} if vary else None,
        "seeds": seeds,
        "seeded": seeded,
        "control": control,
        "model": model,
        "data": data,
        "max_tokens": max_tokens,
        "set": override,
    }
    ablation, name = read_ablation(config, {key: value for key, value in given.items() if value})
    setup = prepare(Asked(ablation, name, str(config), machine))
    if plan:
        from embedtrain.ablation.table import show_plan

        show_plan(setup)
        return
    from embedtrain.ablation.table import ablate as fill

    folder = fill(setup, load_machine(machine), out, keep_models=keep_models)
    print(f"\n{folder}/ablation.html: all {len(setup.cells)} cells are measured")
