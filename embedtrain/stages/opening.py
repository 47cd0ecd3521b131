"""The encoder that a stage starts from: the run's base, or what an earlier stage left."""

from embedtrain.config.stages import Export, Mine, Train
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.stages.context import StageContext

ENCODER = "encoder"


def open_start(context: StageContext) -> Encoder:
    """The encoder named by the stage's `from`, on the machine's device."""
    stage, run, device = context.stage, context.run, context.machine.device
    assert isinstance(stage, Train | Mine | Export)
    if stage.from_ != "base":
        return open_encoder(context.inputs[stage.from_] / ENCODER, device=device)
    config = run.encoder
    if isinstance(stage, Export) and stage.attention is not None:
        config = config.model_copy(update={"attention": stage.attention})
    return load_encoder(run.base, config, run.text, precision=run.precision, device=device)
