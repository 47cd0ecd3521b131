"""Run files: check, plan, show, run, init, and what a run starts in processes of its own."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.app import Config, MachineFile, Override, app, read
from embedtrain.config.errors import UserError
from embedtrain.stops import INTERRUPTED


@app.command(epilog="Example: `embedtrain check configs/quickstart.yaml --set stages.pretrain.steps=200`")
def check(config: Config, override: Override = None, machine: MachineFile = None) -> None:
    """Say all that is wrong with a run file, in under a second."""
    run, _ = read(config, override, machine)
    print(f"{config}: ok, {len(run.stages)} stages, {len(run.sources)} sources")


@app.command(
    epilog="Examples: `embedtrain plan configs/quickstart.yaml`, "
    "`embedtrain plan configs/mistral_7b.yaml --machine configs/machines/gpu_8.yaml`"
)
def plan(
    config: Config,
    override: Override = None,
    machine: MachineFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, in seconds and bytes")] = False,
) -> None:
    """Show which stages are done, which are stale and why, and what they will cost; start nothing."""
    import json

    from embedtrain.pipeline import plan_run, print_plan
    from embedtrain.pipeline.costs import estimate_run, print_costs, to_json

    run, device = read(config, override, machine)
    plans = plan_run(run)
    estimate = estimate_run(run, device, plans)
    if as_json:
        print(json.dumps(to_json(run, plans, estimate), indent=2))
        return
    print_plan(run, plans)
    print_costs(estimate)


@app.command(
    epilog="Examples: `embedtrain show configs/quickstart.yaml`, "
    "`embedtrain show configs/quickstart.yaml --texts 2`"
)
def show(
    config: Config,
    override: Override = None,
    texts: Annotated[
        int | None,
        typer.Option(
            min=1, help="the first rows of every source, exactly as the model sees them: string and ids"
        ),
    ] = None,
) -> None:
    """Print what a run file means: its stages, sources and objectives as formulas."""
    from embedtrain.config.describe import describe_run
    from embedtrain.config.load import load_run

    if texts is None:
        print(describe_run(load_run(config, override or ())))
        return
    from embedtrain.stages.show_texts import show_texts

    show_texts(read(config, override, None)[0], texts)


@app.command(
    epilog="Example: `embedtrain run configs/quickstart.yaml`. Stop it with Ctrl-C at any time; "
    "the same command goes on from there."
)
def run(
    config: Config,
    override: Override = None,
    machine: MachineFile = None,
    until: Annotated[str | None, typer.Option(help="stop after this stage", show_default=False)] = None,
    again: Annotated[bool, typer.Option("--again", help="throw unfinished stages away first")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors")] = False,
) -> None:
    """Do every stage that is not done yet, each in its own process; resumes where it stopped."""
    from embedtrain.pipeline import run_stages
    from embedtrain.show.quiet import silence

    value, device = read(config, override, machine, starts=True)
    if until is not None and until not in {s.name for s in value.stages}:
        names = ", ".join(s.name for s in value.stages)
        raise UserError(f"--until {until}: {config} has no such stage; it has {names}")
    with silence(wanted=quiet):
        folder = run_stages(value, device, str(config), until=until, again=again)
        print(f"\n{folder}: all asked for is done")


@app.command(epilog="Example: `embedtrain init my.yaml --rows my_pairs.jsonl`")
def init(
    config: Annotated[Path, typer.Argument(help="file to write", show_default=False)],
    rows: Annotated[str, typer.Option(help="your rows: jsonl or parquet")] = "rows.jsonl",
    model: Annotated[str, typer.Option(help="base model")] = "HuggingFaceTB/SmolLM2-135M",
) -> None:
    """Write a commented run file to start from."""
    from embedtrain.artifacts import write_atomic
    from embedtrain.config.starter import starter

    if config.exists():
        raise UserError(f"{config} is there already; give another name or remove it")
    write_atomic(config, starter(config.stem, rows, model))
    print(f"{config} written; next: embedtrain check {config}")


@app.command(hidden=True)
def stage(folder: Annotated[Path, typer.Argument(help="unfinished stage folder")]) -> None:
    """Work on one stage folder (what `run` starts in a process of its own)."""
    from embedtrain.stages.entry import work_on

    try:
        work_on(folder)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@app.command(hidden=True)
def probe(question: Annotated[Path, typer.Argument(help="JSON file with a run")]) -> None:
    """Check what needs torch and the model's files (what `run` asks before its first stage)."""
    from embedtrain.stages import probe

    probe.probe(question)
