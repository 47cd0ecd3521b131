"""A process that takes training steps in one way, for tools/bench/levers.py: LEVERS has the ways."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import nn

from embedtrain.batch import TokenBatch
from embedtrain.config.errors import UserError
from embedtrain.config.tuning import Lora
from embedtrain.model.compiled import compiled_layers
from embedtrain.model.encoder import Encoder
from embedtrain.model.lora import ADAPTER, lora_layers
from tools.bench.peers.ours import make_batch
from tools.bench.start import ALPHA, RANK
from tools.bench.steps import LORA, SEED, num_tokens, open_trainee, time_call
from tools.bench.workloads import SHAPES, draw_workload, text_stream
from tools.peak import device_peak, give_back, start_peak

ALL_ON = "everything on"
ALL_TOKENS = 2**62
STREAM_TOKENS = 50_000
UNTIL_THE_END = ExitStack()
"""Of the process, which has but one way."""
Change = Callable[[Encoder], None]


@dataclass(frozen=True)
class Lever:
    """A way to take steps; what is not said is as with everything on.

    `prepare` changes the encoder once it has its adapters. `only_on_gpu`: why a CPU's figure says nothing.
    """

    kernel: str = "packed"
    keep_tokens: int = ALL_TOKENS
    lora: Lora = field(default_factory=lambda: LORA)
    prepare: Change | None = None
    changes_loss: bool = False
    only_on_gpu: str = ""


def in_batch_order(encoder: Encoder) -> None:
    """Cut the batch as it comes: texts of all lengths are padded to the longest of their chunk."""

    def chunks(
        self: TokenBatch, max_tokens: int, *, padded: bool = False
    ) -> Iterator[tuple[Any, TokenBatch]]:
        start, longest = 0, 0
        for place, length in enumerate(self.lengths_T.tolist()):
            longest = max(longest, length)
            if (place + 1 - start) * longest > max_tokens and place > start:
                yield torch.arange(start, place), self.take(range(start, place))
                start, longest = place, length
        yield torch.arange(start, len(self)), self.take(range(start, len(self)))

    TokenBatch.chunks = chunks  # type: ignore[method-assign]


def unfused(encoder: Encoder) -> None:
    """peft's own forward pass: three products and a sum, each of which autograd keeps apart."""
    for _, layer in lora_layers(encoder.backbone):
        layer.__class__ = PeftLinear


def as_peft_has_it(encoder: Encoder) -> None:
    """peft's own adapters: float32, to which the activation is cast, never the weight to its precision."""
    unfused(encoder)
    for _, layer in lora_layers(encoder.backbone):
        layer.cast_input_dtype_enabled = True
        for part in (layer.lora_A, layer.lora_B):
            part[ADAPTER].__class__ = nn.Linear


def with_head(encoder: Encoder) -> None:
    """A causal language model's load: logits of every token, and keys and values kept in a cache."""
    backbone = encoder.backbone
    backbone.config.use_cache = True

    def add_logits(module: nn.Module, args: object, output: Any) -> Any:
        output["logits"] = nn.functional.linear(
            output.last_hidden_state, backbone.get_input_embeddings().weight
        )
        return output

    backbone.register_forward_hook(add_logits)


def compiled(encoder: Encoder) -> None:
    """The layers in machine code, as `compile: true` in a machine file makes them."""
    UNTIL_THE_END.enter_context(compiled_layers(encoder))


LEVERS = {
    ALL_ON: Lever(),
    "without packing: sorted, padded": Lever(kernel="sdpa"),
    "without sorting: padded as it comes": Lever(kernel="sdpa", prepare=in_batch_order),
    "without kept graphs: encoded twice": Lever(keep_tokens=0),
    "with activation checkpointing": Lever(prepare=Encoder.checkpoint_activations),
    "without the fused LoRA product": Lever(prepare=unfused),
    "with LoRA dropout 0.05": Lever(lora=Lora(rank=RANK, alpha=ALPHA, dropout=0.05), changes_loss=True),
    "with the language model's head and cache": Lever(prepare=with_head),
    "with peft's adapters as they come": Lever(
        prepare=as_peft_has_it, only_on_gpu="in float32 nothing is cast; it takes a model in bfloat16"
    ),
    "with torch.compile": Lever(prepare=compiled),
}


@dataclass(frozen=True)
class Asked:
    """What every way gets alike."""

    model: str
    layers: int
    workload: str
    rows: Path
    shrink: int
    chunk_tokens: int
    threads: int
    device: str
    precision: str


class Refused(Exception):
    """A way that cannot be taken here, and why."""


class Worker:
    """A process of its own that takes a step when asked, and ends with the `with` block."""

    def __init__(self, name: str, asked: Asked) -> None:
        """Start it; it opens the model."""
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, asked), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> "Worker":
        return self

    def step(self) -> dict[str, Any]:
        """What the next step shows. Raises Refused."""
        try:
            self.pipe.send("step")
            found: dict[str, Any] = self.pipe.recv()
        except (EOFError, BrokenPipeError):
            self.process.join()
            raise SystemExit(f"levers: '{self.name}' ended, exit status {self.process.exitcode}") from None
        if "refused" in found:
            raise Refused(found["refused"])
        if "failed" in found:
            raise SystemExit(f"levers: '{self.name}' failed\n{found['failed']}")
        return found

    def __exit__(self, *error: object) -> None:
        """Let it end."""
        self.pipe.close()
        self.process.join()


def serve(pipe: Connection, name: str, asked: Asked) -> None:
    """The process: a step for every message, until there are no more."""
    try:
        steps = take_steps(LEVERS[name], asked)
        while pipe.recv():
            pipe.send(next(steps))
    except EOFError:
        return
    except UserError as error:
        pipe.send({"refused": str(error)})
    except Exception:
        pipe.send({"failed": traceback.format_exc()})


def take_steps(lever: Lever, asked: Asked) -> Iterator[dict[str, Any]]:
    """Figures of one step after another."""
    torch.set_num_threads(asked.threads)
    trainee = open_trainee(
        asked.model,
        asked.layers,
        kernel=lever.kernel,
        lora=lever.lora,
        device=asked.device,
        precision=asked.precision,
    )
    encoder = trainee.encoder
    shape, files = SHAPES[asked.workload], sorted(asked.rows.rglob("train.parquet"))
    if asked.shrink > 1:
        shape = shape.shrunk(asked.shrink, shape.rows)
    stream = text_stream(encoder.tokenizer, files, STREAM_TOKENS)
    batch = make_batch(draw_workload(asked.workload, shape, stream, SEED))
    if lever.prepare is not None:
        lever.prepare(encoder)
    run: list[int] = []
    encoder.register_forward_pre_hook(lambda module, args: run.append(size_of(encoder, args[0])))

    def step() -> None:
        losses.append(trainee.step(batch, asked.chunk_tokens, lever.keep_tokens))

    losses: list[float] = []
    while True:
        held = start_peak(asked.device)
        run.clear()
        torch.manual_seed(SEED)
        took = time_call(step, asked.device)
        peak = device_peak(asked.device)
        give_back()  # many ways wait their turn side by side
        yield {
            "seconds": took["wall" if asked.device == "cuda" else "cpu"],
            "wall_seconds": took["wall"],
            "held_bytes": held,
            "peak_bytes": peak,
            "loss": losses[-1],
            "texts": len(batch.queries) + len(batch.documents),
            "tokens": num_tokens(batch),
            "tokens_run": sum(run),
            "padded": encoder.padded,
        }


def size_of(encoder: Encoder, texts: TokenBatch) -> int:
    """Tokens that the model gets, those of padding too."""
    return texts.num_tokens if encoder.padded is None else len(texts) * int(texts.lengths_T.max())
