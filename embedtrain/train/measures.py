"""What a step took of the machine: rows a second, peak memory, and the useful share of a GPU's FLOPs."""

import resource
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from embedtrain.config.costs import GPUS, Tuning, training_flops
from embedtrain.config.distilling import Distil
from embedtrain.config.schema import Machine
from embedtrain.config.shapes import read_shape
from embedtrain.config.stages import Train

if TYPE_CHECKING:
    from embedtrain.model.encoder import Encoder

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, as each system counts


def peak_memory(device: str) -> int:
    """Most bytes that this process has held: of a GPU's memory with device cuda, else of the machine's."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return peak_resident()


def peak_resident() -> int:
    """Most bytes of the machine's memory that this process has held."""
    return RSS_UNIT * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True, slots=True)
class Done:
    """A step of the whole batch, on all processes: its rows, texts and tokens, and how long it took."""

    rows: int
    texts: int
    tokens: int
    seconds: float
    processes: int


class Job(Protocol):
    """A training."""

    @property
    def encoder(self) -> "Encoder": ...
    @property
    def stage(self) -> Train | Distil: ...
    @property
    def machine(self) -> Machine: ...


def useful_utilisation(job: Job, done: Done) -> float | None:
    """Model FLOPs utilisation: those that a step needs, of those that its GPUs have in that time.

    What is encoded twice to save memory is counted once. None where the machine file names no `gpu`, or where
    the model's family is unknown.
    """
    shape = read_shape(job.encoder.backbone.config.to_dict())
    if job.machine.gpu is None or shape is None or not done.texts:
        return None
    board, precision = GPUS[job.machine.gpu], job.encoder.spec.precision
    adapters = shape.adapters(job.stage.lora) if job.stage.tuning == "lora" else None
    needed = done.tokens * training_flops(shape, done.tokens / done.texts, Tuning(precision, adapters))
    peak = board.float32 if precision == "float32" else board.bfloat16
    return needed / (done.seconds * peak * done.processes)


def step_measures(job: Job, done: Done) -> dict[str, float]:
    """The columns of a curve's line that tell of the machine."""
    measured = {
        "samples_per_second": round(done.rows / done.seconds, 1),
        "peak_memory_bytes": peak_memory(job.machine.device),
    }
    useful = useful_utilisation(job, done)
    return measured if useful is None else measured | {"mfu": round(useful, 4)}
