"""Steps of a distillation on any number of processes, with as few imports as the loop has."""

from pathlib import Path
from typing import Any

import numpy as np

from embedtrain.config.distilling import Distil
from embedtrain.config.schema import Base, EncoderConfig, Machine, TextFormat
from embedtrain.dist import current
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import tune_all
from embedtrain.model.projection import add_projection, draw_projection
from embedtrain.train import distil as loop
from embedtrain.train.skips import Skips
from embedtrain.train.taught import SIDES, Taught, Written
from embedtrain.train.wishes import Wishes

Line = tuple[float, ...]


def job_of(base: Path, made: Path, settings: dict[str, Any]) -> loop.Distilling:
    """A training of a base that is ready for its first step, in float64; `made` has its texts and vectors."""
    stage = Distil.model_validate(settings)
    vectors = {side: np.load(made / "teacher" / f"{side}.npy", mmap_mode="r") for side in SIDES}
    taught = Taught(Written(made / "texts"), vectors)
    encoder = load_encoder(Base(model=str(base)), EncoderConfig(), TextFormat())
    tune_all(encoder)
    add_projection(encoder, draw_projection(encoder.dim, taught.dim, 1))
    return loop.prepare(encoder.double(), taught, stage, Machine(chunk_tokens=64), made, 7)


def no_skips(job: loop.Distilling) -> Skips:
    """Every step must be taken."""
    return Skips(job.stage.name, 0, job.folder, {"step": 0})


def three_steps(base: Path, made: Path, settings: dict[str, Any]) -> tuple[int, list[Line]]:
    """This process's number, then loss, gradient norm and tokens of each step, then loss and cosine."""
    job = job_of(base, made, settings)
    lessons = (loop.local_lesson(job, step) for step in range(3))
    figures = [loop.do_step(job, step, lessons, no_skips(job), Wishes())[0] for step in range(3)]
    shown: list[Line] = [
        tuple(float(line[n]) for n in ("loss", "gradient_norm", "tokens")) for line in figures
    ]
    return current().rank, [*shown, loop.measure(job)]
