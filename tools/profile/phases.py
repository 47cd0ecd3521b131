"""Where the time of a training step goes, by phase: a clock that the functions of a step enter from outside.

A phase's seconds are its own, without those of the phases entered within it. Each is also a label of
`torch.profiler`. On a GPU the clock waits for the device at every turn, so nothing overlaps in its figures.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import record_function

from embedtrain.batch import ContrastiveBatch
from embedtrain.train import step
from embedtrain.train.deal import Dealt, deal_texts
from tools.bench.steps import Trainee

PREFIX = "phase: "
REST = "objective's backward, the rest"
PHASES = (
    "deal texts",
    "sort and cut",
    "pack, copy, pool",
    "encode, graphs kept",
    "encode, no graph",
    "vectors in order",
    "gather",
    "objective",
    REST,
    "encode again",
    "backward, graphs kept",
    "backward, encoded again",
    "average over processes",
    "clip",
    "optimizer",
)


class Clock:
    """Seconds, CPU-seconds of all threads, and calls by phase; entering one stops the one around it."""

    def __init__(self, device: str = "cpu") -> None:
        """Start with nothing."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.cpu_seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.open: list[str] = []
        self.device = device
        self.turned = (0.0, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is done inside is this phase's."""
        self.turn()
        self.calls[name] += 1
        self.open.append(name)
        try:
            with record_function(PREFIX + name):
                yield
        finally:
            self.turn()
            self.open.pop()

    def turn(self) -> None:
        """Book the time since the last turn on the innermost phase."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if self.open:
            self.seconds[self.open[-1]] += now[0] - self.turned[0]
            self.cpu_seconds[self.open[-1]] += now[1] - self.turned[1]
        self.turned = now

    def inside(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a phase."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed


@contextmanager
def labelled(trainee: Trainee, clock: Clock) -> Iterator[Trainee]:
    """The trainee with its step's functions as phases: the whole inside belongs to one of them."""
    encoder = trainee.encoder
    carry, forward = step.carry_gradient, encoder.backbone.forward

    def encode(*args: Any, **kwargs: Any) -> Any:
        again = any(name.startswith("backward") for name in clock.open)
        kept = "encode, graphs kept" if torch.is_grad_enabled() else "encode, no graph"
        with clock.phase("encode again" if again else kept):
            return forward(*args, **kwargs)

    def backward(encoder: Any, chunk: Any, gradient_TD: torch.Tensor) -> None:
        kept = chunk.vectors_TD.requires_grad
        with clock.phase("backward, graphs kept" if kept else "backward, encoded again"):
            carry(encoder, chunk, gradient_TD)

    with (
        patch.object(step, "deal_texts", clock.inside("deal texts", deal_texts)),
        patch.object(Dealt, "gather", clock.inside("gather", Dealt.gather)),
        patch.object(step, "encode_chunks", clock.inside("sort and cut", step.encode_chunks)),
        patch.object(step, "in_order", clock.inside("vectors in order", step.in_order)),
        patch.object(step, "carry_gradient", backward),
        patch.object(encoder, "forward", clock.inside("pack, copy, pool", encoder.forward)),
        patch.object(encoder.backbone, "forward", encode),
    ):
        objective = clock.inside("objective", trainee.objective)
        yield Trainee(encoder, trainee.optimizer, objective)


def labelled_step(
    trainee: Trainee, batch: ContrastiveBatch, clock: Clock, chunk_tokens: int, keep_tokens: int
) -> float:
    """A whole step in phases; its loss."""
    with labelled(trainee, clock) as timed:
        with clock.phase(REST):
            gather = clock.inside("gather", step.gather_batch)
            loss = timed.gradient(batch, chunk_tokens, keep_tokens, gather)
        with clock.phase("average over processes"):
            timed.average()
        with clock.phase("clip"):
            timed.clip()
        with clock.phase("optimizer"):
            timed.optimizer.step()
    return loss
