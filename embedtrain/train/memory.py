"""How much memory there is, and how many graphs fit into it, measured once on the first chunk of a training.

A kept graph saves the second encoding of its texts and changes no gradient. So every process keeps what
fits on its own device, and the numbers may differ from process to process and from run to run.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from embedtrain.batch import TokenBatch
from embedtrain.model.encoder import Encoder
from embedtrain.model.layout import layers_of
from embedtrain.train.step import random_state, set_random_state

KIB, MIB, GIB = 2**10, 2**20, 2**30
USED_FRACTION = {"cuda": 0.8, "cpu": 0.5, "mps": 0.5}
"""Of the free memory; the rest is for the loss, for other programs, and for what fragments."""
UNKNOWN_TOKENS = 8192
"""Kept where free memory cannot be read."""
STATES = 2
"""Numbers that AdamW holds of each parameter."""


@dataclass(frozen=True, slots=True)
class GraphCost:
    """Bytes of a kept graph for each token, and bytes that a chunk's way forth and back needs besides."""

    per_token: float
    besides: int


def measure_graph(
    encoder: Encoder, part: TokenBatch, size: int, chunk_tokens: int, is_checkpointing: bool
) -> GraphCost:
    """Encode a chunk of `size` tokens once for measure; randomness and gradients stay as they were."""
    state = random_state(encoder.device)
    try:
        if encoder.device.type == "cuda":
            graph, besides = measure_on_cuda(encoder, part)
        else:
            graph = besides = measure_saved(encoder, part, is_checkpointing)
    finally:
        set_random_state(encoder.device, state)
    gradients = sum(p.nbytes for _, p in encoder.trainable())
    larger = max(1.0, chunk_tokens / size)
    return GraphCost(graph / size, round(besides * larger) + gradients)


def measure_on_cuda(encoder: Encoder, part: TokenBatch) -> tuple[int, int]:
    """(bytes of the chunk's graph, most bytes beside it on the way back), as torch's allocator counts."""
    device, parameters = encoder.device, [p for _, p in encoder.trainable()]
    with torch.no_grad():
        encoder(part)  # libraries take their workspaces now
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    vectors_TD = encoder(part)
    graph = torch.cuda.memory_allocated(device) - before
    torch.autograd.grad(vectors_TD.sum(), parameters, allow_unused=True)
    peak = torch.cuda.max_memory_allocated(device) - before
    return graph, max(0, peak - graph - sum(p.nbytes for p in parameters))


def measure_saved(encoder: Encoder, part: TokenBatch, is_checkpointing: bool) -> int:
    """Bytes that the chunk's graph keeps alive, tensor by tensor: a CPU's allocator tells nothing.

    With activation checkpointing these are the layers' inputs, which torch keeps out of sight of its hooks.
    """
    weights = (*encoder.parameters(), *encoder.buffers())
    own = {x.untyped_storage().data_ptr() for x in weights}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return x

    def look(layer: object, inputs: tuple[Tensor, ...]) -> None:
        note(inputs[0])

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), ExitStack() as stack:
        if is_checkpointing:
            for layer in layers_of(encoder.backbone):
                stack.callback(layer.register_forward_pre_hook(look).remove)
        encoder(part)
    return sum(storage.nbytes() for storage in kept.values())


def state_bytes(encoder: Encoder, optimizer: Optimizer) -> int:
    """What the optimizer has yet to take for its states."""
    return sum(STATES * p.nbytes for _, p in encoder.trainable() if p not in optimizer.state)


def tokens_within(usable: int | None, cost: GraphCost) -> int:
    """Tokens whose graphs fit."""
    if usable is None:
        return UNKNOWN_TOKENS
    return max(0, int((usable - cost.besides) / max(1.0, cost.per_token)))


def describe(cost: GraphCost, free: int | None, keep_tokens: int, num_tokens: int) -> str:
    """The decision, for a person."""
    if keep_tokens >= num_tokens:
        how = f"all {num_tokens:,} tokens of the first step in one pass"
    else:
        how = f"{keep_tokens:,} of the first step's {num_tokens:,} tokens; the rest is encoded twice"
    known = f"{size_text(free)} free" if free is not None else "free memory unknown"
    return f"kept graphs: {size_text(cost.per_token)} a token, {known}: {how}"


def size_text(num_bytes: float) -> str:
    """1.2 MiB."""
    name, unit = next(((n, u) for n, u in (("GiB", GIB), ("MiB", MIB)) if num_bytes >= u), ("KiB", KIB))
    return f"{num_bytes / unit:,.1f} {name}"


def free_bytes(device: torch.device, num_neighbours: int) -> int | None:
    """Memory that this process may still take; on a CPU its share among processes of the machine."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    free = free_ram()
    return None if free is None else free // num_neighbours


def free_ram(root: Path = Path("/")) -> int | None:
    """Bytes of memory that Linux can give, in this container or job; None where it cannot be read."""
    try:
        known = read_pairs(root / "proc/meminfo")
        free = [known["MemAvailable:"] * KIB]
    except (OSError, KeyError):
        return None
    return max(0, min(free + [left for left in map(left_in_group, groups(root)) if left is not None]))


def groups(root: Path) -> Iterator[Path]:
    """Folders of the memory control groups that this process is in, from its own up to the outermost."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        place = top / inside.strip("/")
        yield from (folder for folder in (place, *place.parents) if folder.is_relative_to(top))


def left_in_group(folder: Path) -> int | None:
    """Bytes below a group's limit, cached files counted as free; None where it sets none."""
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
            stat = read_pairs(folder / "memory.stat")
        except OSError:
            continue
        names = ("inactive_file", "active_file")
        cached = sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in names)
        return None if most == "max" else int(most) - now + cached
    return None


def read_pairs(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    words = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}
