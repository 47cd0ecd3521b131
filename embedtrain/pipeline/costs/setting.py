"""What every estimate is made from: the run, the machine, the stages that are done, and the texts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedtrain.config.costs import GPUS, Device, Range, device_of
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine, Run
from embedtrain.config.shapes import Shape
from embedtrain.config.stages import AnyStage
from embedtrain.data.counts import count_rows
from embedtrain.pipeline.costs.texts import Texts, source_texts

START_SECONDS = {"filter": 1.0, "select": 1.0, "export": 8.0, "evaluate": 8.0}
TORCH_SECONDS = 6.0
"""Until a stage's process has its libraries; export and evaluate take sentence-transformers too."""
LIMITS = {"max_query_tokens", "max_document_tokens"}


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate of one stage; None stands for what is not known.

    `tokens` are those that models compute, `memory` bytes on each device, `disk` bytes in the stage's folder
    at their most, of which `passing` ones are gone when the stage is done.
    """

    what: str
    tokens: float | None = 0.0
    seconds: float | None = None
    memory: Range | None = None
    disk: float | None = None
    passing: float = 0.0


@dataclass(frozen=True)
class Setting:
    """`finished` maps stages that are done to their folders; `threads` and `ram` are this computer's."""

    run: Run
    machine: Machine
    finished: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 1
    ram: float | None = None

    @classmethod
    def here(cls, run: Run, machine: Machine, finished: Mapping[str, Path]) -> "Setting":
        """On this computer: threads and memory are its own."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = machine.threads or max(1, cores // machine.num_processes)
        return cls(run, machine, finished, threads, total_ram())

    @property
    def memory(self) -> float | None:
        """Bytes of a process's device; None where the GPU has no name."""
        if self.machine.device == "cuda":
            return GPUS[self.machine.gpu].memory if self.machine.gpu else None
        return self.ram / self.machine.num_processes if self.ram else None

    def device(self, shape: Shape, precision: str) -> Device:
        """How fast a process computes for this model."""
        return device_of(self.machine.device, precision, self.threads, self.machine.gpu, shape.hidden)

    def texts(self, stage: AnyStage, source: str) -> Texts | None:
        """A source's texts under the stage's limits."""
        return source_texts(
            self.run.text, self.run.sources[source], stage.model_dump(include=LIMITS, exclude_none=True)
        )

    def num_rows(self, source: str) -> int | None:
        """Rows of a source as it is."""
        given = self.run.sources[source]
        try:
            counted = count_rows(given.rows)
        except (UserError, OSError):
            return None
        return min(counted, given.max_rows or counted)

    def start_seconds(self, stage: AnyStage) -> float:
        """Until a stage's process begins to work."""
        return START_SECONDS.get(stage.kind, TORCH_SECONDS)


def total_ram() -> float | None:
    """Bytes of this computer's memory."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None
