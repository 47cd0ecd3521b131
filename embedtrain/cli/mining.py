"""Negatives for any trainer's file: mine, score and select without a run file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedtrain.cli.app import MachineFile, app, pairs
from embedtrain.config.errors import UserError

if TYPE_CHECKING:
    from embedtrain.config.schema import Machine

Files = Annotated[
    list[str],
    typer.Argument(help="your file or files: FlagEmbedding, or what `convert` reads", show_default=False),
]
Out = Annotated[Path, typer.Option(help="FlagEmbedding .jsonl or .jsonl.gz to write", show_default=False)]
Format = Annotated[str | None, typer.Option(help="what the files hold; absent means it is found out")]
Column = Annotated[
    list[str] | None, typer.Option(help="which column is what: --column query=title", show_default=False)
]
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        help="perc_pos=0.95, margin_pos=0.05, absolute=0.7, shift=10, same_label, none …; may be repeated; "
        "absent means perc_pos=0.95",
        show_default=False,
    ),
]
Ranks = Annotated[str | None, typer.Option(help="ranks that may be negatives: 50-100")]
Negatives = Annotated[int, typer.Option(min=1, help="negatives a row")]
SampleFrom = Annotated[
    int | None, typer.Option(min=1, help="draw them from so many of the best that stay; absent: the best")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="cut texts; absent: the model's own limit")]
Seed = Annotated[int, typer.Option(min=0, help="of every draw")]
Device = Annotated[
    Literal["cpu", "cuda", "mps"] | None, typer.Option(help="cpu, cuda or mps; absent: the machine file's")
]


@app.command(
    epilog="Examples: `embedtrain mine pairs.jsonl --model runs/quickstart/model --out mined.jsonl`, "
    "`embedtrain mine pairs.jsonl --model BAAI/bge-m3 --bm25 --ranks 10-100 --out mined.jsonl`"
)
def mine(
    paths: Files,
    out: Out,
    model: Annotated[
        list[str] | None,
        typer.Option(help="retriever: folder, hub id or `pip:` package; may be repeated", show_default=False),
    ] = None,
    bm25: Annotated[bool, typer.Option("--bm25", help="retrieve by BM25 too, or alone")] = False,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="more documents to search, beside the rows' own; may be repeated"),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="candidates a retriever finds")] = 100,
    ranks: Ranks = None,
    negatives: Negatives = 7,
    rule: Rules = None,
    sample_from: SampleFrom = None,
    fill: Annotated[bool, typer.Option("--fill", help="fill up with random documents")] = False,
    max_tokens: MaxTokens = None,
    format: Format = None,
    column: Column = None,
    seed: Seed = 7,
    device: Device = None,
    machine: MachineFile = None,
) -> None:
    """Give each row of a file hard negatives that are most likely no answers."""
    from embedtrain.standalone import mine_file

    mine_file(
        paths,
        out,
        models=model or (),
        bm25=bm25,
        corpus=corpus or (),
        top_k=top_k,
        ranks=ranks,
        negatives=negatives,
        rules=rule or (),
        sample_from=sample_from,
        fill=fill,
        max_tokens=max_tokens,
        format=format,
        columns=pairs("--column", column or ()),
        seed=seed,
        machine=machine_on(machine, device),
    )


@app.command(
    epilog="Example: `embedtrain score mined.jsonl --teacher cross_encoder:BAAI/bge-reranker-v2-m3 "
    "--out scored.jsonl`"
)
def score(
    paths: Files,
    out: Out,
    teacher: Annotated[
        list[str],
        typer.Option(
            help="kind:model, of cross_encoder, model, likelihood and yes_no, or bm25; several: their mean",
            show_default=False,
        ),
    ],
    max_tokens: MaxTokens = None,
    format: Format = None,
    column: Column = None,
    seed: Seed = 7,
    device: Device = None,
    machine: MachineFile = None,
) -> None:
    """Write a teacher's scores beside the positives and negatives of a file."""
    from embedtrain.standalone import score_file

    score_file(
        paths,
        out,
        teachers=teacher,
        max_tokens=max_tokens,
        format=format,
        columns=pairs("--column", column or ()),
        seed=seed,
        machine=machine_on(machine, device),
    )


@app.command(epilog="Example: `embedtrain select scored.jsonl --rule perc_pos=0.95 --out selected.jsonl`")
def select(
    paths: Files,
    out: Out,
    rule: Rules = None,
    ranks: Ranks = None,
    negatives: Negatives = 7,
    sample_from: SampleFrom = None,
    format: Format = None,
    column: Column = None,
    seed: Seed = 7,
    machine: MachineFile = None,
) -> None:
    """Keep those negatives of a scored file that the rules let stay."""
    from embedtrain.standalone import select_file

    select_file(
        paths,
        out,
        rules=rule or (),
        ranks=ranks,
        negatives=negatives,
        sample_from=sample_from,
        format=format,
        columns=pairs("--column", column or ()),
        seed=seed,
        machine=machine_on(machine, None),
    )


def machine_on(path: Path | None, device: str | None) -> "Machine":
    """The machine file's, on the device named on the command line."""
    from embedtrain.config.load import load_machine

    machine = load_machine(path)
    if device == "mps" and machine.num_processes > 1:
        raise UserError(f"--device mps: {path} has num_processes {machine.num_processes}, and mps has one")
    return machine if device is None else machine.model_copy(update={"device": device})
