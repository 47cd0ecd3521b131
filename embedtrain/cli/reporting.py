"""Reports: the page of a run and its model card, from what lies on disk."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.app import Config, Override, app, read


@app.command(
    epilog="Examples: `embedtrain report configs/quickstart.yaml`, "
    "`embedtrain report configs/quickstart.yaml --card card.md`"
)
def report(
    config: Config,
    override: Override = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; absent: report.html in the run's folder")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(help="also write the model card with the measured figures here", show_default=False),
    ] = None,
) -> None:
    """Write the page of a run as it stands now, finished or not, without opening a model."""
    from embedtrain.pipeline import plan_run
    from embedtrain.stages.run_report.card import write_measured_card
    from embedtrain.stages.run_report.page import PAGE, rebuild_page

    run, _ = read(config, override, None)
    plans = plan_run(run)
    folders = {p.stage.name: p.folder if p.state == "done" else p.partial for p in plans}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    states = {p.stage.name: (p.state, p.why) for p in plans}
    page = out or Path(run.folder) / run.name / PAGE
    for text in rebuild_page(run, folders, states, page):
        print(text)
    print(page)
    if card is not None:
        write_measured_card(run, folders, card)
        print(card)
