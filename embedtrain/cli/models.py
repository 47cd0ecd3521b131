"""Models: encode and evaluate."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.app import MachineFile, app


class Bits(StrEnum):
    """In how few bits vectors can be measured."""

    INT8 = "int8"
    BINARY = "binary"


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
        list[str] | None,
        typer.Option(
            help="test data: BEIR folder, jsonl, or a folder of them; may be repeated", show_default=False
        ),
    ] = None,
    mteb: Annotated[
        list[str] | None,
        typer.Option(help="a task of mteb by name, such as NFCorpus; may be repeated", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for report.json and report.html")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="cut the tasks to subsets of about this many tokens in all")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="a BM25 row for retrieval")] = True,
    documents: Annotated[
        str | None, typer.Option(help="a model that encodes the documents: each of the others, its queries")
    ] = None,
    truncate: Annotated[
        list[int] | None,
        typer.Option(min=1, help="measure the first so many dims too; may be repeated", show_default=False),
    ] = None,
    quantise: Annotated[
        list[Bits] | None,
        typer.Option(help="measure vectors in so few bits too; may be repeated", show_default=False),
    ] = None,
    mteb_results: Annotated[
        bool, typer.Option("--mteb-results", help="write the results on --data in mteb's own format too")
    ] = False,
    machine: MachineFile = None,
) -> None:
    """Measure exported folders, or any sentence-transformers folder, on local data and on tasks of mteb.

    With `--documents`, each model also answers queries against documents that that model has encoded.
    """
    from embedtrain.config.load import load_machine
    from embedtrain.stages.evaluate import evaluate_folders

    evaluate_folders(
        models,
        data or (),
        out,
        max_tokens,
        bm25,
        load_machine(machine),
        documents=documents,
        truncation=truncate or (),
        quantisation=quantise or (),
        mteb=mteb or (),
        mteb_results=mteb_results,
    )
