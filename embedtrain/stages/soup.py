"""Merges encoders: several in, one out."""

from embedtrain.average import Tensors, merge, tensors_in_memory
from embedtrain.config.errors import UserError
from embedtrain.config.soups import Difference, Soup
from embedtrain.model.checkpoint import all_tensors, save_encoder, set_weights
from embedtrain.model.encoder import Encoder
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.show.progress import progress
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import ENCODER


def run_stage(context: StageContext) -> dict[str, object]:
    """Write `encoder/`. Adapters are merged first: the average of products is not the product of averages."""
    stage = context.stage
    assert isinstance(stage, Soup)
    encoders = {name: open_encoder(context.inputs[name] / ENCODER) for name in stage.from_}
    first = encoders[stage.from_[0]]
    check_alike(stage, encoders)
    checkpoints = [tensors_of(encoder, name) for name, encoder in encoders.items()]
    base = open_base(context) if isinstance(stage.method, Difference) else None
    mixed = merge(checkpoints, stage.method, base=base, seed=context.seed)
    with progress("merge", total=len(mixed.info), unit="tensor") as bar:
        weights = {}
        for name in mixed.info:
            weights[name] = mixed.read(name)
            bar.advance(1)
    set_weights(first, weights, stage.name)
    save_encoder(first, context.folder / ENCODER)
    return {"merged": list(stage.from_), "method": stage.method.model_dump(), "num_tensors": len(weights)}


def check_alike(stage: Soup, encoders: dict[str, Encoder]) -> None:
    """Raise UserError where encoders are not of one kind."""
    first = encoders[stage.from_[0]]
    for name, other in encoders.items():
        if other.spec != first.spec:
            raise UserError(
                f"stage '{stage.name}': '{name}' is {other.spec.describe()}, but '{stage.from_[0]}' is "
                f"{first.spec.describe()}; only encoders of one kind can be averaged"
            )


def tensors_of(encoder: Encoder, origin: str) -> Tensors:
    """The merged weights."""
    return tensors_in_memory(dict(all_tensors(encoder)), origin)


def open_base(context: StageContext) -> Tensors:
    """The weights that every checkpoint started from."""
    run = context.run
    return tensors_of(load_encoder(run.base, run.encoder, run.text, precision=run.precision), "base")
