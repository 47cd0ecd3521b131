"""What a step may take of memory, and what happens where it finds none: it begins anew with less.

A process without memory may not leave the others waiting for its messages. What it could not encode it
sends as NaN, what it could not carry back it leaves out, and it goes through the step to its end. The last
message of a step, which every step sends, holds two more numbers: whether any process was short, and whether
it had nothing left to let go but the size of its chunks. So all decide alike, and no message is added.

Of the scores and the loss, between the messages, neither chunks nor graphs are the cost: there a single
process begins anew too, and one of several ends the stage.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from embedtrain.batch import TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.dist import current
from embedtrain.model.encoder import Encoder
from embedtrain.train.checkpoint import State
from embedtrain.train.memory import (
    USED_FRACTION,
    GraphCost,
    describe,
    free_bytes,
    measure_graph,
    state_bytes,
    tokens_within,
)
from embedtrain.train.step import size_of

SHORT, STUCK = "short_of_memory", "stuck_without_memory"
SAYINGS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory: you tried to allocate",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How torch tells of it on one device or another."""


@dataclass
class Budget:
    """Tokens of a chunk, and tokens whose graphs a step keeps: None until they are measured."""

    chunk_tokens: int
    keep_tokens: int | None
    state: State = field(default_factory=dict)
    is_short: bool = False

    @classmethod
    def of(cls, machine: Machine) -> "Budget":
        """As the machine file says."""
        return cls(machine.chunk_tokens, None if machine.keep_tokens == "auto" else machine.keep_tokens)

    def resume(self, state: State) -> None:
        """Go on with the chunks of a checkpoint that had less memory; `state` receives what changes."""
        self.state = state
        self.chunk_tokens = min(self.chunk_tokens, int(state.get("chunk_tokens", self.chunk_tokens)))

    def settle(self, encoder: Encoder, texts: TokenBatch, optimizer: Optimizer, machine: Machine) -> None:
        """Measure where nobody has said a number, on a step's local texts; the first process tells."""
        if self.keep_tokens is not None or len(texts) == 0:
            return
        padded, checkpointing = encoder.padded is not None, machine.activation_checkpointing
        parts = [part for _, part in texts.chunks(self.chunk_tokens, padded=padded)]
        measured: list[GraphCost] = []
        with self.guard():
            size = size_of(parts[0], padded)
            measured.append(measure_graph(encoder, parts[0], size, self.chunk_tokens, checkpointing))
        if not measured:
            return
        [cost] = measured
        free = free_bytes(encoder.device, max(1, current().world // machine.num_nodes))
        cost = GraphCost(cost.per_token, cost.besides + state_bytes(encoder, optimizer))
        usable = None if free is None else int(free * USED_FRACTION[encoder.device.type])
        self.keep_tokens = tokens_within(usable, cost)
        if current().rank == 0:
            num_tokens = sum(size_of(part, padded) for part in parts)
            print(describe(cost, free, self.keep_tokens, num_tokens), file=sys.stderr)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Work that this process does by itself: where it finds no memory, it notes that and leaves."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.is_short = True

    def guard_alone(self) -> AbstractContextManager[None]:
        """The same around work with messages, where nobody else waits for them."""
        return self.guard() if current().world == 1 else nullcontext()

    def flags(self) -> dict[str, Tensor]:
        """What the step's last message says of this process."""
        stuck = self.is_short and not self.keep_tokens
        return {SHORT: torch.tensor(float(self.is_short)), STUCK: torch.tensor(float(stuck))}

    def relieve(self, where: str, step: int, means: dict[str, float]) -> bool:
        """Whether the step is to begin anew, by the mean of all processes' flags: then with less.

        Who was short keeps half the graphs. Where one had none to let go, all halve their chunks.
        Raises UserError where a chunk cannot be smaller.
        """
        short, stuck = means.pop(SHORT), means.pop(STUCK)
        if not short:
            return False
        if self.is_short and self.keep_tokens:
            self.keep_tokens = self.keep_tokens // 2 if self.keep_tokens >= self.chunk_tokens else 0
        if stuck:
            if self.chunk_tokens == 1:
                raise UserError(f"{where}: {no_memory(self)}")
            self.chunk_tokens //= 2
            self.state["chunk_tokens"] = self.chunk_tokens
        self.is_short = False
        torch.cuda.empty_cache()
        if current().rank == 0:
            world = current().world
            who = f" on {round(short * world)} of {world} processes" if world > 1 else ""
            print(
                f"step {step}: out of memory{who}, begun anew; chunks of {self.chunk_tokens:,} tokens, "
                f"graphs of {self.keep_tokens or 0:,} are kept",
                file=sys.stderr,
            )
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that no memory was left, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in SAYINGS)


@contextmanager
def memory_faults(where: str, budget: Budget) -> Iterator[None]:
    """What no smaller chunk mends is told as: `where` it happened, and what to change."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{where}: {no_memory(budget)}") from None


def no_memory(budget: Budget) -> str:
    """What to change."""
    kept = f"graphs of {budget.keep_tokens:,} tokens are kept (keep_tokens), " if budget.keep_tokens else ""
    return (
        f"out of memory; {kept}a chunk has {budget.chunk_tokens:,} tokens (chunk_tokens): lower them in the "
        "machine file, switch its activation_checkpointing on, or lower token limits or batch_size in the run"
    )
