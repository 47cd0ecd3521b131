"""What a stage starts from: an encoder and rows, the run's own or what an earlier stage left."""

from pathlib import Path

from embedtrain.config.distilling import Distil
from embedtrain.config.errors import UserError
from embedtrain.config.mining import Mine
from embedtrain.config.references import snapshot
from embedtrain.config.stages import Export, Train
from embedtrain.data.store import RowStore, open_rows, open_source
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.stages.context import ROWS, StageContext, stage_rows
from embedtrain.train.snapshots import snapshot_folder

ENCODER = "encoder"


def open_start(context: StageContext) -> Encoder:
    """The encoder named by the stage's `from`, on the machine's device, or on the host for what follows."""
    stage, run, device = context.stage, context.run, context.machine.device
    assert isinstance(stage, Train | Distil | Export)
    if isinstance(stage, Train) and (context.machine.sharding == "full" or run.base.load is not None):
        device = "cpu"
    if stage.from_ != "base":
        return open_encoder(encoder_folder(context, stage.from_), device=device)
    config = run.encoder
    if isinstance(stage, Export) and stage.attention is not None:
        config = config.model_copy(update={"attention": stage.attention})
    return load_encoder(run.base, config, run.text, precision=run.precision, device=device)


def encoder_folder(context: StageContext, name: str) -> Path:
    """The encoder of an earlier stage or, where `name` is `NAME@STEP`, its snapshot of that step.

    Raises UserError where the stage's folder does not hold the snapshot.
    """
    stage, step = snapshot(name)
    if step is None:
        return context.inputs[stage] / ENCODER
    folder = snapshot_folder(context.inputs[stage], step)
    if not folder.is_dir():
        raise UserError(f"stage '{context.stage.name}': {name}: {folder} is not there")
    return folder


def open_sources(context: StageContext, stage: Train | Distil | Mine) -> dict[str, RowStore]:
    """Rows by source: those of an earlier stage where one is named, else of the sources as they are."""
    weighted = [name for name, source in context.run.sources.items() if source.weight > 0]
    wanted = stage.sources or weighted
    if stage.rows is not None:
        folder = context.inputs[stage.rows]
        written = [name for name in context.run.sources if stage_rows(folder, name)]
        wanted = [name for name in wanted if stage.sources or name in written]
        if absent := [name for name in wanted if name not in written]:
            raise UserError(
                f"stage '{stage.name}': stage '{stage.rows}' has no rows of {', '.join(absent)}; "
                f"it has {', '.join(written)}"
            )
    if not wanted:
        raise UserError(f"stage '{stage.name}': no rows to read; every source has weight 0")
    return {name: open_one(context, stage, name) for name in wanted}


def open_one(context: StageContext, stage: Train | Distil | Mine, name: str) -> RowStore:
    """The rows of one source, as the stage reads them."""
    if stage.rows is None:
        return open_source(context.run.sources[name], name, context.seed)
    return open_rows(rows_path(context, stage, name))


def rows_path(context: StageContext, stage: Train | Distil | Mine, name: str) -> Path:
    """Where the rows of one source are."""
    if stage.rows is None:
        return Path(context.run.sources[name].rows)
    folder = context.inputs[stage.rows]
    return stage_rows(folder, name) or folder / ROWS / name
