"""The command line: `embedtrain check | plan | show | run | encode | evaluate | init`. No torch here."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtrain.config.errors import UserError

if TYPE_CHECKING:
    from embedtrain.config.schema import Machine, Run

INTERRUPTED = 130

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


@app.command(epilog="Example: `embedtrain check configs/quickstart.yaml --set stages.pretrain.steps=200`")
def check(config: Config, override: Override = None, machine: MachineFile = None) -> None:
    """Say all that is wrong with a run file, in under a second."""
    run, _ = read(config, override, machine)
    print(f"{config}: ok, {len(run.stages)} stages, {len(run.sources)} sources")


@app.command(epilog="Example: `embedtrain plan configs/quickstart.yaml`")
def plan(config: Config, override: Override = None, machine: MachineFile = None) -> None:
    """Show which stages are done, which are stale and why; start nothing."""
    from embedtrain.pipeline import plan_run, print_plan

    run, _ = read(config, override, machine)
    print_plan(run, plan_run(run))


@app.command(epilog="Example: `embedtrain show configs/quickstart.yaml`")
def show(config: Config, override: Override = None) -> None:
    """Print what a run file means: its stages, sources and objectives as formulas."""
    from embedtrain.config.describe import describe_run
    from embedtrain.config.load import load_run

    print(describe_run(load_run(config, override or ())))


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
) -> None:
    """Do every stage that is not done yet, each in its own process; resumes where it stopped."""
    from embedtrain.pipeline import run_stages

    value, device = read(config, override, machine, starts=True)
    if until is not None and until not in {s.name for s in value.stages}:
        names = ", ".join(s.name for s in value.stages)
        raise UserError(f"--until {until}: {config} has no such stage; it has {names}")
    folder = run_stages(value, device, str(config), until=until, again=again)
    print(f"\n{folder}: all asked for is done")


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


@app.command(
    epilog="Example: `embedtrain encode runs/quickstart/model --texts questions.txt --side query "
    "--out questions.npy`"
)
def encode(
    model: Annotated[str, typer.Argument(help="exported folder, checkpoint or hub id", show_default=False)],
    texts: Annotated[Path, typer.Option(help="text file, one text a line", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="NumPy file to write, float32, one row a text", show_default=False)
    ],
    side: Annotated[str, typer.Option(help="query or document: which prompt is used")] = "document",
    machine: MachineFile = None,
) -> None:
    """Encode the lines of a text file into unit vectors."""
    from embedtrain.config.load import load_machine
    from embedtrain.stages.encode import encode_file

    encode_file(model, texts, out, side, load_machine(machine))


@app.command(
    epilog="Example: `embedtrain evaluate runs/quickstart/model --data rows/tests/faq`. "
    "Several folders stand side by side in one table."
)
def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="sentence-transformers folders or `pip:` packages", show_default=False)
    ],
    data: Annotated[
        list[str],
        typer.Option(
            help="test data: BEIR folder, jsonl, or a folder of them; may be repeated", show_default=False
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="folder for report.json and report.html")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="cut the tasks to subsets of about this many tokens in all")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="a BM25 row for retrieval")] = True,
    machine: MachineFile = None,
) -> None:
    """Measure exported folders, or any sentence-transformers folder, on local data."""
    from embedtrain.config.load import load_machine
    from embedtrain.stages.evaluate import evaluate_folders

    evaluate_folders(models, data, out, max_tokens, bm25, load_machine(machine))


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


def read(
    config: Path, override: list[str] | None, machine: Path | None, starts: bool = False
) -> "tuple[Run, Machine]":
    """The run and the machine, checked; raises ConfigError with every fault at once."""
    from embedtrain.config.check import read_config
    from embedtrain.data.rows import count_rows
    from embedtrain.text import validate_template

    return read_config(
        config,
        override or (),
        machine,
        count_rows=count_rows,
        validate_template=validate_template,
        starts=starts,
    )


def main() -> None:
    """Run the command line: a user's mistake is one clear message and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"embedtrain: {error}" if "\n" not in str(error) else str(error), file=sys.stderr)
        sys.exit(getattr(error, "code", 2))
    except KeyboardInterrupt:
        print("embedtrain: interrupted; the same command goes on from where it was", file=sys.stderr)
        sys.exit(INTERRUPTED)
