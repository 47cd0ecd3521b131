"""What a model costs: multiply-accumulates, bytes that training and encoding hold, and seconds on a device.

Pure functions of a shape. They estimate, and docs/plan.md derives them and compares them with measurements.
b is the bytes of a number in the run's precision, N the weights of the linear layers in the stack of layers.
"""

from dataclasses import dataclass

from embedtrain.config.shapes import Shape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT32 = 4
NF4 = (4 + 8 / 64 + 32 / 64 / 256) / 8
"""Bytes of a weight: 4 bits, an 8-bit scale for 64 of them, and a 32-bit one for 256 scales."""
STATES = 2
"""Numbers that AdamW holds of each parameter."""
CPU_FLOPS = 60e9
"""Of one thread in float32: what training steps and encoding reach on a core of an AMD EPYC."""
UPDATE_SECONDS = 12e-9
"""Of one parameter on a CPU: gradient cleared, normed, clipped; averages and number read and written."""
UPDATE_BYTES = 100
"""The same as bytes that a GPU's memory moves."""
SCORE_COPIES = 5
"""Matrices of scores that a term keeps at once (benchmarks/loss_memory: 5.3)."""
STREAM_ABOVE, STREAM_BYTES = 2**24, 12 * FLOAT32 * 2**22
"""Scores of local queries and candidates above which a term streams them, and bytes that it then holds."""
GATHERED_COPIES = 4
"""Of the vectors of a global batch: encoded, gathered, and the gradients of both."""
PROCESS_BYTES = {"cpu": 0.6e9, "cuda": 1.0e9, "mps": 0.6e9}
"""Libraries on a CPU; on a GPU its context and what the allocator rounds up."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Bytes of memory, bytes a second, and dense FLOPs a second as its maker publishes them."""

    memory: float
    bandwidth: float
    bfloat16: float
    float32: float


GPUS = {
    "h200": Gpu(141e9, 4.8e12, 989e12, 67e12),
    "h100": Gpu(80e9, 3.35e12, 989e12, 67e12),
    "a100": Gpu(80e9, 2.0e12, 312e12, 19.5e12),
    "a100_40gb": Gpu(40e9, 1.6e12, 312e12, 19.5e12),
    "l4": Gpu(24e9, 0.3e12, 121e12, 30e12),
    "rtx_4090": Gpu(24e9, 1.0e12, 165e12, 83e12),
}
"""SXM boards where there are several."""
ASSUMED_GPU = "h100"
UTILISATION, SMALL_UTILISATION, SMALL_HIDDEN = 0.40, 0.25, 2048
"""Share of a GPU's FLOPs that is reached, and by models with fewer hidden numbers: assumed, not measured."""


@dataclass(frozen=True, slots=True)
class Device:
    """What computes: `rate` FLOPs a second, None where unknown; `update` seconds a parameter."""

    kind: str
    rate: float | None
    update: float


def device_of(kind: str, precision: str, threads: int, gpu: str | None, hidden: int) -> Device:
    """Of one process. A CPU without instructions for bfloat16 is a hundred times slower: unknown there."""
    if kind == "cuda":
        board = GPUS[gpu or ASSUMED_GPU]
        peak = board.float32 if precision == "float32" else board.bfloat16
        return Device(kind, peak * utilisation(hidden), UPDATE_BYTES / board.bandwidth)
    rate = CPU_FLOPS * threads if kind == "cpu" and precision == "float32" else None
    return Device(kind, rate, UPDATE_SECONDS)


def utilisation(hidden: int) -> float:
    """Share of a GPU's peak that a model of so many hidden numbers is assumed to reach."""
    return UTILISATION if hidden >= SMALL_HIDDEN else SMALL_UTILISATION


@dataclass(frozen=True, slots=True)
class Tuning:
    """What trains: all weights, or adapters of so many numbers, `ranks` summed over a layer's matrices.

    `parts` processes share out the weights, and what an update needs of those that train. The linear layers
    of a `quantised` base are in 4 bits.
    """

    precision: str
    adapters: int | None = None
    ranks: int = 0
    parts: int = 1
    quantised: bool = False

    @property
    def is_full(self) -> bool:
        """Whether all weights train."""
        return self.adapters is None

    def trained(self, shape: Shape) -> int:
        """Numbers that change."""
        return shape.parameters if self.adapters is None else self.adapters

    @property
    def is_mixed(self) -> bool:
        """Whether products are bfloat16 over float32 weights: all weights train in float32."""
        return self.is_full and self.precision != "float32"


def forward_flops(shape: Shape, length: float) -> float:
    """FLOPs of a token in the forward pass, in texts of `length` tokens.

    Two for each weight of the linear layers (a multiplication, an addition), and for attention's two products
    2 * length * query_width each a layer: 2N + 4 L S q. Norms, activations, rotary angles are left out.
    """
    return 2.0 * shape.products + 4.0 * shape.layers * length * shape.query_width


def training_flops(
    shape: Shape, length: float, tuning: Tuning, kept: float = 1.0, again: bool = False
) -> float:
    """FLOPs of a token in a step whose graphs are kept for a share of the tokens.

    The way back costs the forward's once more for the gradients of activations and, where all weights train,
    2N for theirs; attention's costs twice its forward. Adapters add 6 FLOPs a number. What is not kept is
    encoded twice (gradient cache), as are all layers with activation checkpointing (`again`). So LoRA costs
    4N kept and 6N recomputed, full tuning 6N and 8N.
    """
    forward = forward_flops(shape, length)
    attention = forward - 2.0 * shape.products
    weights = 2.0 * shape.products if tuning.is_full else 6.0 * (tuning.adapters or 0)
    repeated = forward * (1.0 - kept + again)
    return forward + 2.0 * shape.products + 2.0 * attention + weights + repeated


def graph_bytes(shape: Shape, tuning: Tuning, device: str, length: float, dropout: bool) -> float:
    """Bytes of a token that autograd keeps for the way back, all layers.

    Of a decoder's layer: the inputs of its norms, in float32 whatever the precision; the norms' outputs that
    linear layers read; queries, keys and values as attention reads them, what it gives, on a CPU twice; four
    times the MLP's width; and LoRA's x A. Where all weights train, a norm keeps its normalised input too. Of
    BERT's: two inputs and two outputs of norms, queries, keys, values, what attention gives, twice the MLP's
    width. Attention's own dropout keeps three matrices of length x heads. A test compares these with what
    `train.memory.measure_saved` counts on a small model of each family.
    """
    b, kind = BYTES[tuning.precision], shape.kind
    d, q, kv, m = shape.hidden, shape.query_width, shape.key_width, shape.intermediate
    copies = 1 if device == "cpu" else 0
    if kind.is_encoder:
        norms = (FLOAT32 if tuning.is_mixed else b) * 2 * d + b * 2 * d
        attention = b * ((6 + copies) * d if kind.gated else (4 + copies) * d)
        attention += b * d if kind.gated else 0
    else:
        norms = kind.norms * d * FLOAT32 + 2 * b * d
        norms += kind.norms * d * FLOAT32 if tuning.is_full else 0
        attention = b * ((2 + copies) * q + 2 * kv)
        attention += FLOAT32 * (q + kv) * (2 if tuning.is_full else 1) if kind.head_norms else 0
    mlp = b * m * (4 if kind.gated else 2)
    drops = 3 * b * length * shape.heads + 2 * d if dropout and kind.dropout else 0
    ends = (3 + tuning.is_full) * FLOAT32 * d
    return shape.layers * (norms + attention + mlp + drops + b * tuning.ranks) + ends


def checkpointed_bytes(shape: Shape, tuning: Tuning) -> float:
    """The same with activation checkpointing: the layers' inputs alone."""
    wide = FLOAT32 if tuning.is_mixed else BYTES[tuning.precision]
    return shape.layers * shape.hidden * wide + 3 * FLOAT32 * shape.hidden


@dataclass(frozen=True, slots=True)
class Step:
    """One process's share of a step: its tokens, those of a chunk, texts' length, and the global batch.

    `views` are matrices of scores made of the batch: terms times Matryoshka dims.
    """

    tokens: float
    chunk: float
    length: float
    local_queries: float
    queries: float
    candidates: float
    dims: int
    views: int = 1


@dataclass(frozen=True, slots=True)
class Range:
    """From one number to another."""

    low: float
    high: float

    def __add__(self, other: float) -> "Range":
        """Both ends moved."""
        return Range(self.low + other, self.high + other)


def fixed_bytes(shape: Shape, tuning: Tuning) -> float:
    """Weights, gradients and AdamW's states.

    Adapters, their gradients and states are float32 beside a base in the run's precision; where all weights
    train they are float32 as are theirs, 16 bytes each, and mixed precision keeps a bfloat16 copy in a graph.
    Where they are shared out, a process holds its part and the layers that are gathered; adapters stay whole.
    """
    if tuning.is_full:
        copy = BYTES[tuning.precision] * shape.products if tuning.is_mixed and tuning.parts == 1 else 0
        return (2 + STATES) * FLOAT32 * shape.parameters / tuning.parts + copy + gathered_bytes(shape, tuning)
    trained = (2 + STATES) * FLOAT32 * tuning.trained(shape)
    own = BYTES[tuning.precision]
    linear = NF4 if tuning.quantised else own
    base = own * (shape.parameters - shape.products) + linear * shape.products
    return base / tuning.parts + trained + gathered_bytes(shape, tuning)


def gathered_bytes(shape: Shape, tuning: Tuning) -> float:
    """The layer that runs, the next one and, where all weights train, a gradient not yet shared out.

    The table of tokens is gathered once more: in float32 where it trains.
    """
    if tuning.parts == 1:
        return 0.0
    layers = (2 + tuning.is_full) * BYTES[tuning.precision] * shape.products / shape.layers
    table = (2 * FLOAT32 if tuning.is_full else BYTES[tuning.precision]) * (shape.parameters - shape.products)
    return layers + table


def batch_bytes(step: Step) -> float:
    """The gathered vectors of the global batch, with their gradients, and the scores of the terms."""
    vectors = GATHERED_COPIES * FLOAT32 * (step.queries + step.candidates) * step.dims
    scores = step.local_queries * step.candidates
    if scores > STREAM_ABOVE:
        return vectors + STREAM_BYTES
    return vectors + SCORE_COPIES * FLOAT32 * scores * step.views


def graphs_bytes(
    shape: Shape, tuning: Tuning, step: Step, device: str, *, dropout: bool, again: bool
) -> tuple[float, float]:
    """(bytes of a token's kept graph, bytes that a chunk on its way back holds beside what is kept).

    On the way back a layer's gradients are as large as its graph. A GPU's allocator takes their memory again
    from layer to layer: two layers' worth; a CPU's holds about as much as the whole graph (measured).
    """
    graph = graph_bytes(shape, tuning, device, step.length, dropout)
    two_layers = graph * step.chunk * min(1.0, 2 / shape.layers)
    if again:
        return checkpointed_bytes(shape, tuning), two_layers
    return graph, graph * step.chunk if device == "cpu" else two_layers


def training_bytes(
    shape: Shape, tuning: Tuning, step: Step, device: str, *, dropout: bool = True, again: bool = False
) -> Range:
    """Bytes on a device while training: with one chunk's graph alone, and with all graphs of a step kept.

    Beside the kept graphs stands the chunk that is on its way back.
    """
    graph, besides = graphs_bytes(shape, tuning, step, device, dropout=dropout, again=again)
    fixed = PROCESS_BYTES[device] + fixed_bytes(shape, tuning) + batch_bytes(step) + besides
    return Range(fixed + graph * step.chunk, fixed + graph * max(step.tokens, step.chunk))


def encoding_bytes(shape: Shape, precision: str, tokens: float) -> float:
    """Weights, and what a layer holds of a batch's tokens: states, norms, heads and the MLP's width."""
    widest = 4 * shape.hidden + 2 * shape.query_width + 2 * shape.key_width + 3 * shape.intermediate
    return BYTES[precision] * (shape.parameters + tokens * widest)


def tokens_within(free: float, fixed: float, graph: float) -> float:
    """Tokens whose graphs fit beside `fixed` bytes."""
    return max(0.0, (free - fixed) / graph)
