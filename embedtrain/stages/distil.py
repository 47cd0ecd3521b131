"""Distils: texts, a teacher and a starting encoder in; a student that answers for the teacher out."""

import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from embedtrain.config.distilling import Distil
from embedtrain.config.errors import UserError
from embedtrain.dist import current, require_processes, start_processes, stop_processes
from embedtrain.mining.sharing import first_makes
from embedtrain.model.checkpoint import save_encoder, save_tensors
from embedtrain.model.cost import macs_per_token
from embedtrain.model.encoder import Encoder
from embedtrain.model.lora import add_lora, fold_lora, tune_all
from embedtrain.model.projection import add_projection, draw_projection, fit_projection
from embedtrain.stages.context import StageContext
from embedtrain.stages.distil_teacher import is_normalised, teach
from embedtrain.stages.distil_texts import TEXTS, collect_texts
from embedtrain.stages.opening import ENCODER, open_start
from embedtrain.stages.teacher import TEACHER
from embedtrain.train.distil import distil
from embedtrain.train.taught import Taught, Written

FIT_TEXTS = 4096
FITTED = "projection.safetensors"


def run_stage(context: StageContext) -> dict[str, object]:
    """Write `encoder/`, `curve.jsonl` and, while it runs, `texts/`, `teacher/` and `checkpoints/`."""
    stage = context.stage
    assert isinstance(stage, Distil)
    start_processes(
        context.machine.device, timeout_seconds=context.machine.timeout_seconds, folder=context.folder
    )
    require_processes(context.machine.num_processes)
    if context.machine.threads:
        torch.set_num_threads(context.machine.threads)
    seed = context.seed if stage.seed is None else stage.seed
    encoder = open_start(context)
    written = Written(collect_texts(context, stage, encoder, seed))
    encoder.to("cpu")  # the teacher has the device to itself; training brings the encoder back
    lectures = teach(context, stage, written)
    taught = Taught(written, lectures.vectors)
    encoder.spec = replace(encoder.spec, normalize=is_normalised(lectures.vectors))
    facts = describe(encoder, taught, lectures.facts.get("macs_per_token"))
    say(stage, facts)
    make_student(context, stage, encoder, taught, seed)
    facts |= distil(encoder, taught, stage, context.machine, context.folder, seed)
    if current().rank == 0:
        save_student(context.folder, stage, encoder)
    stop_processes()
    return facts


def describe(encoder: Encoder, taught: Taught, teacher_macs: object) -> dict[str, object]:
    """What is learned, from whom, and what a token costs student and teacher (`macs_per_token`)."""
    written = taught.written
    return {
        "texts": written.facts["texts"],
        "held_out_texts": written.facts["held_out_texts"],
        "written_texts": len(written.lengths_W),
        "tokens_of_texts": int(written.lengths_W.sum()),
        "teacher_dims": taught.dim,
        "teacher_is_normalised": encoder.spec.normalize,
        "student_macs_per_token": macs_per_token(encoder.backbone),
        "teacher_macs_per_token": teacher_macs,
    }


def say(stage: Distil, facts: dict[str, object]) -> None:
    """The first process tells what is learned, and at what cost."""
    if current().rank != 0:
        return
    length = "length 1" if facts["teacher_is_normalised"] else "any length"
    student, teacher = facts["student_macs_per_token"], facts["teacher_macs_per_token"]
    share = ""
    if isinstance(student, int) and isinstance(teacher, int):
        share = f"; the student's layers cost {student / teacher:.0%} of the teacher's a token"
    print(
        f"distil {stage.name}: {facts['texts']:,} texts, {facts['held_out_texts']:,} more to validate on, "
        f"{facts['tokens_of_texts']:,} tokens; vectors of {facts['teacher_dims']} dims and {length}{share}",
        file=sys.stderr,
    )


def make_student(context: StageContext, stage: Distil, encoder: Encoder, taught: Taught, seed: int) -> None:
    """Say what trains, and bring the encoder's vectors to the teacher's dims."""
    encoder.to(context.machine.device)
    if stage.tuning == "lora":
        add_lora(encoder, stage.lora, seed)
    else:
        tune_all(encoder)
    if stage.projection != "none":
        add_projection(encoder, make_projection(context, stage, encoder, taught, seed))
    elif encoder.dim != taught.dim:
        raise UserError(
            f"stage '{stage.name}': projection is 'none', the student's vectors have {encoder.dim} dims and "
            f"the teacher's {taught.dim}; set projection to drawn or fitted"
        )


def make_projection(
    context: StageContext, stage: Distil, encoder: Encoder, taught: Taught, seed: int
) -> nn.Linear:
    """The projection before the first step: drawn, or fitted once, by the first process."""
    linear = draw_projection(encoder.dim, taught.dim, seed)
    if stage.projection == "fitted":
        fit = partial(write_fit, context, encoder, taught, seed)
        linear.load_state_dict(load_file(first_makes(context.folder / FITTED, current(), fit)))
    return linear


def write_fit(context: StageContext, encoder: Encoder, taught: Taught, seed: int, path: Path) -> None:
    """Fit the projection on at most `FIT_TEXTS` training texts, drawn by the seed."""
    training = taught.written.training
    places = np.random.default_rng(seed).permutation(training)[:FIT_TEXTS]
    student_ND = encode_raw(encoder, taught, places, context.machine.encode_tokens)
    fitted = fit_projection(student_ND, torch.from_numpy(taught.targets(places)))
    save_tensors(dict(fitted.state_dict()), path)


def encode_raw(encoder: Encoder, taught: Taught, places: np.ndarray, tokens_per_batch: int) -> Tensor:
    """The encoder's raw vectors of writings by number, on the CPU."""
    tokens = taught.written.tokens(places)
    vectors_ND = torch.empty(len(places), encoder.dim)
    encoder.eval()
    with torch.inference_mode():
        for rows, part in tokens.chunks(tokens_per_batch, padded=encoder.padded is not None):
            vectors_ND[rows] = encoder(part).float().cpu()
    encoder.train()
    return vectors_ND


def save_student(folder: Path, stage: Distil, encoder: Encoder) -> None:
    """Write the student, all weights where it has a projection; remove what only training needed."""
    if stage.projection != "none":
        fold_lora(encoder)
    save_encoder(encoder.eval(), folder / ENCODER)
    for name in (TEXTS, TEACHER):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / FITTED).unlink(missing_ok=True)
