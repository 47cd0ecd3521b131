"""What the training stages of a run will see of each source: from footers alone, before anything starts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from embedtrain.config.check import find, sources_of
from embedtrain.config.mining import Mine, Select
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.data.counts import count_rows
from embedtrain.mixture import Share, batch_sizes, num_steps, plan_shares
from embedtrain.show.tables import print_table
from embedtrain.stages.context import stage_rows

COLUMNS = ("stage", "source", "rows", "share %", "rows seen", "passes")


def print_shares(run: Run, finished: Mapping[str, Path]) -> None:
    """A table of the sources of all training stages; `finished` maps names of stages to their folders."""
    stages = [stage for stage in run.stages if isinstance(stage, Train)]
    lines = [line for stage in stages for line in share_lines(run, stage, finished)]
    waiting = {stage.rows for stage in stages if stage.rows} - finished.keys()
    note = f"counted before {', '.join(sorted(waiting))}, which may leave fewer rows" if waiting else None
    if lines:
        print_table("what training sees", COLUMNS, lines, note=note)


def share_lines(run: Run, stage: Train, finished: Mapping[str, Path]) -> Iterator[list[object]]:
    """A line for each source of a stage."""
    for name, share in stage_shares(run, stage, finished).items():
        yield [stage.name, name, share.size, 100 * share.fraction, share.drawn, share.passes]


def stage_shares(run: Run, stage: Train, finished: Mapping[str, Path]) -> dict[str, Share]:
    """What a stage will see of each of its sources."""
    sources = {name: run.sources[name] for name in sources_of(run, stage)}
    sizes = {name: num_rows(run, stage, name, finished) for name in sources}
    return plan_shares(
        sizes,
        {name: source.weight for name, source in sources.items()},
        stage.mixture,
        batch_sizes(stage, sources),
        num_steps(stage, sizes),
    )


def num_rows(run: Run, stage: Train, name: str, finished: Mapping[str, Path]) -> int:
    """Rows that the stage reads of a source; before the stage that writes them is done, the source's own."""
    folder = finished.get(stage.rows or "")
    if folder and (written := stage_rows(folder, name)):
        return count_rows(written)
    counted = count_rows(run.sources[name].rows)
    return min(counted, run.sources[name].max_rows or counted, mined_rows(run, stage) or counted)


def mined_rows(run: Run, stage: Train) -> int | None:
    """Rows of a source that are mined at most for the rows that the stage reads; None where all are."""
    select = find(run, stage.rows, Select)
    mine = find(run, select.candidates, Mine) if select else None
    return mine.max_rows if mine else None
