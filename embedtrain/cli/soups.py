"""Soups: several models as one, without a run file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.cli.app import MachineFile, app

Method = Literal["mean", "slerp", "task_arithmetic", "ties", "dare", "greedy", "lm_cocktail"]


@app.command(
    epilog="Examples: `embedtrain soup runs/a/model runs/b/model --out soup`, `embedtrain soup runs/a/model "
    "runs/b/model runs/c/model --method greedy --validate held-out.jsonl --out soup`, `embedtrain soup "
    "runs/a/tune-1a2b3c4d runs/a/tune-1a2b3c4d@150 --out soup`"
)
def soup(
    models: Annotated[
        list[str],
        typer.Argument(
            help="exports, checkpoints, stage folders (FOLDER@STEP: a snapshot), PEFT adapters, packages",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder to write; it must not be there", show_default=False)],
    method: Annotated[Method, typer.Option(help="how they become one")] = "mean",
    weights: Annotated[
        str | None, typer.Option(help="mean, slerp: one a model, 1,2,1; absent: all alike")
    ] = None,
    validate: Annotated[
        list[str] | None,
        typer.Option(help="greedy: validation data, never test data; as for evaluate; may be repeated"),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="greedy: cut the data to about this many tokens in all")
    ] = None,
    examples: Annotated[
        str | None, typer.Option(help="lm_cocktail: rows with queries and positives", show_default=False)
    ] = None,
    num_examples: Annotated[
        int | None, typer.Option(min=1, help="lm_cocktail: how many are drawn of them; absent: 100")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="lm_cocktail: of the weights; the larger, the more alike; absent: 5")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="ties (absent: 0.2), dare (0.5): share of numbers that is kept")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="task_arithmetic, ties, dare: factor of the difference; absent: 1")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="model that all started from, for differences; adapters know theirs, whatever it says"
        ),
    ] = None,
    adapter_rank: Annotated[
        int | None, typer.Option(min=1, help="fold the result into one adapter of this rank on the base")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of what is drawn: dare, lm_cocktail")] = 7,
    machine: MachineFile = None,
) -> None:
    """Merge models of one kind into one, a block of rows at a time; exports give an export."""
    from embedtrain.config.load import load_machine
    from embedtrain.stages.soup_command import soup_models

    settings = {
        "weights": weights,
        "data": tuple(validate) if validate else None,
        "max_tokens": max_tokens,
        "rows": examples,
        "num_rows": num_examples,
        "temperature": temperature,
        "density": density,
        "scale": scale,
    }
    soup_models(models, out, method, settings, base, adapter_rank, seed, load_machine(machine))
