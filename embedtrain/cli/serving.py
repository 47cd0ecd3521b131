"""Serving: what servers make of an exported folder, its ONNX graph, and its upload."""

import json
from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.app import app


@app.command(
    epilog="Example: `embedtrain serving runs/quickstart/model`. Exit code 1 where a server would refuse "
    "the folder, or give other vectors without a word."
)
def serving(
    folder: Annotated[Path, typer.Argument(help="exported model folder", show_default=False)],
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="sentence-transformers, transformers, tei or vllm; may be repeated", show_default="all"
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="show rules that are fine, too, with their sources")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="all rules as JSON, with their sources")] = False,
) -> None:
    """Say what sentence-transformers, transformers, TEI and vLLM would make of a folder, by their sources."""
    from embedtrain.serving import check

    findings = check.check_folder(folder, check.choose_servers(server or ()))
    if as_json:
        print(json.dumps(check.as_json(folder, findings), indent=2, ensure_ascii=False))
    else:
        check.print_findings(folder, findings, every)
    raise typer.Exit(int(check.is_bad(findings)))


@app.command(
    epilog="Example: `embedtrain onnx runs/quickstart/model --out quickstart-onnx`. Needs `embedtrain[onnx]`."
)
def onnx(
    model: Annotated[Path, typer.Argument(help="exported model folder", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="folder to write; the graph is onnx/model.onnx", show_default=False)
    ],
    texts: Annotated[
        Path | None,
        typer.Option(help="texts to prove it on, one a line; a few are built in", show_default=False),
    ] = None,
) -> None:
    """Write a model as an ONNX graph, texts' tokens to vectors, and prove both vectors and attention."""
    from embedtrain.config.errors import UserError
    from embedtrain.model.onnx import GRAPH, export_onnx

    if texts is not None and not texts.is_file():
        raise UserError(f"--texts {texts}: no such file")
    lines = [] if texts is None else [line for line in texts.read_text().splitlines() if line.strip()]
    facts = export_onnx(model, out, lines)
    print(
        f"{out / GRAPH}: {facts['attention']} attention, cosine distance to sentence-transformers at most "
        f"{facts['max_cosine_distance']:.1e}; see {out / 'onnx' / 'parity.json'}"
    )


@app.command(epilog="Example: `embedtrain push runs/quickstart/model --repo me/faq-retriever --private`.")
def push(
    folder: Annotated[Path, typer.Argument(help="exported model folder", show_default=False)],
    repo: Annotated[
        str, typer.Option(help="owner/name; owner is whoever is logged in if left out", show_default=False)
    ],
    private: Annotated[bool, typer.Option("--private", help="make a new repository private")] = False,
    revision: Annotated[
        str | None, typer.Option(help="branch, made where there is none", show_default="main")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="model card to upload as README.md", show_default="the folder's own")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="a server that must load it, as in `serving`; may be repeated", show_default="all"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check and list, upload nothing")] = False,
) -> None:
    """Upload an exported folder to a model hub, once it is proved and servers can load it."""
    from embedtrain.serving.check import choose_servers
    from embedtrain.serving.push import push_folder

    address = push_folder(
        folder,
        repo,
        private=private,
        revision=revision,
        card=card,
        servers=choose_servers(server or ()),
        dry_run=dry_run,
    )
    print("nothing was uploaded" if address is None else address)
