"""What a train stage measures as it trains, on any number of processes, with few imports."""

from pathlib import Path

import torch
from taught_sources import context_of, make_run, stage_of

from embedtrain.model.load import load_encoder
from embedtrain.stages.context import StageContext
from embedtrain.stages.train import validation_of
from embedtrain.train.place import share_out


def measured(folder: Path, sharding: str = "none") -> dict[str, float]:
    """What a stage measures of its untrained encoder, on any number of processes."""
    context = validated_context(folder)
    validate = validation_of(context, stage_of(context.run))
    assert validate is not None
    run = context.run
    encoder = load_encoder(run.base, run.encoder, run.text)
    if sharding == "full":
        share_out(encoder, torch.device("cpu"))
    return validate(encoder.eval())


def validated_context(folder: Path) -> StageContext:
    data = str(folder / "held.jsonl")
    run = make_run(folder, [{"kind": "infonce"}], validation={"data": [data], "every_steps": 2})
    return context_of(run)
