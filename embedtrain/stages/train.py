"""Trains: rows and a starting encoder in, an encoder and its curve out."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from embedtrain.config.stages import Train
from embedtrain.data.rows import Row
from embedtrain.dist import current, require_processes, start_processes, stop_processes
from embedtrain.evaluation.measure import Remembering, measure
from embedtrain.evaluation.sets import cut, read_tasks, unlike_names
from embedtrain.evaluation.validation import Validated, mean_score
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.encoder import Encoder
from embedtrain.model.lora import add_lora, tune_all
from embedtrain.model.prompts import SourcePrompts
from embedtrain.model.quantised import quantise
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import ENCODER, open_sources, open_start
from embedtrain.stages.preflight import require, row_faults, teacher_dim_faults, view_faults
from embedtrain.stages.teacher import TEACHER, StoredVectors, is_taught, lookups, teacher_vectors
from embedtrain.text import source_text
from embedtrain.train.loop import train
from embedtrain.train.place import whole_weights
from embedtrain.train.validation import Validate


def run_stage(context: StageContext) -> dict[str, object]:
    """Write `encoder/`, `curve.jsonl` and, while it runs, `checkpoints/`."""
    stage = context.stage
    assert isinstance(stage, Train)
    start_processes(
        context.machine.device, timeout_seconds=context.machine.timeout_seconds, folder=context.folder
    )
    require_processes(context.machine.num_processes)
    if context.machine.threads:
        torch.set_num_threads(context.machine.threads)
    rows = open_sources(context, stage)
    encoder = open_start(context)
    by_name = {name: partial(rows.__getitem__, name) for name in rows}
    require([*row_faults(context.run, stage, by_name), *view_faults(stage, encoder.dim)])
    vectors = learn_from(context, stage, rows, encoder)
    if stage.tuning == "lora":
        add_lora(encoder, stage.lora, context.run.seed if stage.seed is None else stage.seed)
    else:
        tune_all(encoder)
    if context.run.base.load is not None:
        quantise(encoder)
    teachers = lookups(stage, rows, vectors)
    facts = train(
        encoder,
        rows,
        stage,
        context.run,
        context.machine,
        context.folder,
        teachers=teachers,
        validate=validation_of(context, stage),
    )
    with whole_weights(encoder):
        if current().rank == 0:
            save_encoder(encoder.eval(), context.folder / ENCODER)
            shutil.rmtree(context.folder / TEACHER, ignore_errors=True)
    stop_processes()
    return facts | {"rows": {name: len(source) for name, source in rows.items()}}


def validation_of(context: StageContext, stage: Train) -> Validate | None:
    """Measures an encoder on the stage's validation data, all processes sharing the texts.

    Where weights are sharded all encode every text: they run the layers together, and shares differ.
    """
    if stage.validation is None:
        return None
    tasks = cut(unlike_names(read_tasks(stage.validation.data)), stage.validation.max_tokens)

    def validate(encoder: Encoder) -> dict[str, float]:
        prompts = {
            name: SourcePrompts(source_text(encoder.spec.text, source, context.run.seed), source.tasks)
            for name, source in context.run.sources.items()
        }
        judged = Validated(encoder, stage.name, prompts)
        shared = Remembering(stage.name, lambda: judged, shared=current().world > 1 and not encoder.sharded)
        results = [measure(shared, task) for task in tasks]
        return {result.task: result.figure.value for result in results} | {"mean": mean_score(results)}

    return validate


def learn_from(
    context: StageContext, stage: Train, rows: Mapping[str, Sequence[Row]], encoder: Encoder
) -> StoredVectors | None:
    """The teacher's vectors, of dims that the encoder can learn; None where no source needs any."""
    if stage.teacher is None or not any(is_taught(stage, name) for name in rows):
        return None
    encoder.to("cpu")  # the teacher has the device to itself; training brings the encoder back
    vectors = teacher_vectors(context, stage, stage.teacher, rows)
    require([*teacher_dim_faults(stage, encoder.dim, vectors.dim)])
    return vectors
