"""The command line: `embedtrain check | plan | run | convert | audit | evaluate` … No torch here."""

import sys
from collections.abc import Sequence
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
    epilog="Examples: `embedtrain convert pairs.jsonl --out rows/mine`, "
    "`embedtrain convert nli.csv --task nli --out rows/nli`"
)
def convert(
    paths: Annotated[
        list[str],
        typer.Argument(help="files or folders of one set, or a Hugging Face data set id", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="folder of canonical rows to write", show_default=False)],
    format: Annotated[
        str | None, typer.Option(help="what the files hold; absent means it is found out")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="make rows of labelled data: nli, sts, classification, clustering …")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="which column is what: --column query=title", show_default=False)
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="texts of documents, where rows hold ids")] = None,
    queries: Annotated[str | None, typer.Option(help="texts of queries, where rows hold ids")] = None,
    split: Annotated[str | None, typer.Option(help="part of a data set; absent means train")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="stop after so many rows")] = None,
    instruction: Annotated[str | None, typer.Option(help="instruction of rows that have none")] = None,
    source: Annotated[str | None, typer.Option(help="name of the source, kept in the rows")] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="leave faulty records out and count them")
    ] = False,
) -> None:
    """Turn the data you have into canonical rows: FlagEmbedding, Tevatron, BEIR, MS MARCO and others."""
    from embedtrain.stages.convert import convert_files

    convert_files(
        paths,
        out,
        format=format,
        task=task,
        columns=pairs("--column", column or ()),
        corpus=corpus,
        queries=queries,
        split=split,
        limit=limit,
        instruction=instruction,
        source=source,
        skip_faulty=skip_faulty,
    )


@app.command(
    epilog="Examples: `embedtrain audit configs/quickstart.yaml --test-data rows/tests/faq`, "
    "`embedtrain audit rows/mine`"
)
def audit(
    what: Annotated[
        list[str], typer.Argument(help="a run file, or rows: folders or files", show_default=False)
    ],
    test_data: Annotated[
        list[str] | None,
        typer.Option(help="evaluation data that rows must not contain; may be repeated", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for audit.json and audit.html")] = Path("audit"),
    tokenizer: Annotated[
        str | None,
        typer.Option(help="tokenizer.json, folder or model that counts tokens; absent means a run's base"),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="rows whose language is found out")] = 20_000,
    override: Override = None,
) -> None:
    """Say what is wrong with rows before they cost GPU hours: duplicates, leaks, truncation, languages."""
    from embedtrain.stages.audit import audit_sources

    is_run = what[0].endswith((".yaml", ".yml"))
    if is_run and len(what) > 1:
        raise UserError(f"audit {what[0]} {what[1]}: expected one run file, or rows alone")
    rows = read(Path(what[0]), override, None)[0] if is_run else [Path(path) for path in what]
    audit_sources(rows, test_data or (), out, sample, tokenizer)


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
    prompt: Annotated[
        str | None, typer.Option(help="a named prompt of the folder, instead of side's")
    ] = None,
    machine: MachineFile = None,
) -> None:
    """Encode the lines of a text file into unit vectors."""
    from embedtrain.config.load import load_machine
    from embedtrain.stages.encode import encode_file

    encode_file(model, texts, out, side, load_machine(machine), prompt)


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
