"""Data: convert, split and audit."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.app import Override, app, pairs, read
from embedtrain.config.errors import UserError


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
    epilog="Example: `embedtrain split my_pairs.jsonl --share 0.25 --train split/train --test split/test`"
)
def split(
    rows: Annotated[Path, typer.Argument(help="rows: a folder or a file", show_default=False)],
    train: Annotated[Path, typer.Option(help="folder of rows to write, to train on", show_default=False)],
    test: Annotated[
        Path, typer.Option(help="folder to write, a test for `evaluate` in BEIR's layout", show_default=False)
    ],
    share: Annotated[float, typer.Option(help="about this part of the rows is held out")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="which rows are drawn")] = 7,
) -> None:
    """Hold rows out for a test, which asks their queries among all documents; no answer is on both sides."""
    from embedtrain.stages.split import split_file

    split_file(rows, train, test, share=share, seed=seed)


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
