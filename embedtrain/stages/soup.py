"""Averages: several encoders in, one with the uniform average of their merged weights out."""

from embedtrain.average import average, tensors_in_memory
from embedtrain.config.errors import UserError
from embedtrain.config.stages import Soup
from embedtrain.model.checkpoint import all_tensors, save_encoder, set_weights
from embedtrain.model.load import open_encoder
from embedtrain.show.progress import progress
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import ENCODER


def run_stage(context: StageContext) -> dict[str, object]:
    """Write `encoder/`. Adapters are merged first: the average of products is not the product of averages."""
    stage = context.stage
    assert isinstance(stage, Soup)
    encoders = {name: open_encoder(context.inputs[name] / ENCODER) for name in stage.from_}
    first = next(iter(encoders.values()))
    for name, other in encoders.items():
        if other.spec != first.spec:
            raise UserError(
                f"stage '{stage.name}': '{name}' is {other.spec.describe()}, but '{stage.from_[0]}' is "
                f"{first.spec.describe()}; only encoders of one kind can be averaged"
            )
    mixed = average([tensors_in_memory(dict(all_tensors(e)), name) for name, e in encoders.items()])
    with progress("average", total=len(mixed.info), unit="tensor") as bar:
        weights = {}
        for name in mixed.info:
            weights[name] = mixed.read(name)
            bar.advance(1)
    set_weights(first, weights, stage.name)
    save_encoder(first, context.folder / ENCODER)
    return {"averaged": list(stage.from_), "num_tensors": len(weights)}
