"""The only file that talks to other processes.

Convention: queries and candidates are gathered with gradient, each process sums the loss over its local
queries, and parameter gradients are averaged once a step. No factor of the number of processes stands
anywhere: the objective divides the local sum by the mean over processes of the count.

Everything here works in one process without starting anything.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from embedtrain.config.errors import UserError
from embedtrain.places import begin, end, meeting

Item = TypeVar("Item")
BUCKET_NUMEL = 2**26
TIMEOUT_SECONDS, JOIN_SECONDS = 1800.0, 600.0
"""What a process lets the others wait for, and at least what it may take to start."""
# torch 2.13 renamed both; the old names warn there and are the only ones before.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True)
class Processes:
    """Which process this is, of how many."""

    rank: int
    world: int


def current() -> Processes:
    """This process; the only one where no group was started."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes(0, 1)


def launched(
    expected: int,
    device: str = "cpu",
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    folder: Path | None = None,
) -> Processes:
    """This process, by the launcher's environment: of many that share files and never talk to each other.

    In `folder` each says where it is; where one gives no sign of life for the timeout, those that wait fail.
    Raises UserError unless the launcher started the machine file's number of processes.
    """
    found = Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if found.world != expected:
        raise UserError(
            f"the machine file says num_processes: {expected}, but the number of running processes is "
            f"{found.world}; start stages with `embedtrain run`, which launches them"
        )
    if device == "cuda" and found.world > 1:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if folder is not None and found.world > 1:
        begin(folder, found.rank, timeout_seconds)
    return found


def start_processes(
    device: str = "cpu", *, timeout_seconds: float = TIMEOUT_SECONDS, folder: Path | None = None
) -> Processes:
    """Join the group that the launcher describes in the environment; nothing to join in a single process.

    What lies on a GPU travels by nccl, what lies on the host by gloo: no GPU waits for the latter. Where one
    process lets the others wait longer than the timeout, they fail; in `folder` each says where it is.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if folder is not None:
            begin(folder, int(os.environ["RANK"]), timeout_seconds)
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        with meeting("join"):
            dist.init_process_group(backend, timeout=timedelta(seconds=max(JOIN_SECONDS, timeout_seconds)))
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_seconds))
    return current()


def stop_processes() -> None:
    """Leave the group, if there is one."""
    end()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def require_processes(expected: int) -> None:
    """Raise UserError unless exactly the machine file's number of processes runs."""
    found = int(os.environ.get("WORLD_SIZE", "1"))
    if found != expected or current().world != expected:
        raise UserError(
            f"the machine file says num_processes: {expected}, but the number of running processes is "
            f"{current().world} (WORLD_SIZE {found}); start stages with `embedtrain run`, which launches them"
        )


def barrier() -> None:
    """Wait until every process is here; their GPUs may still be at work."""
    if current().world > 1:
        with meeting("barrier"):
            dist.barrier()  # by gloo, which every group has


def gather_vectors(*vectors: Tensor) -> tuple[Tensor, ...]:
    """Each one's rows of all processes in rank order, with gradient, in one message.

    All have the same dtype and dims; each process may hold any number of rows of each, 0 included.
    """
    if current().world == 1:
        return vectors
    sizes, device = _sizes(vectors), vectors[0].device
    longest = max(map(sum, sizes))
    places = [
        torch.cat(
            [
                rank * longest + sum(size[:i]) + torch.arange(size[i], device=device)
                for rank, size in enumerate(sizes)
            ]
        )
        for i in range(len(vectors))
    ]
    return gather_places(torch.cat(vectors), longest, *places)


def gather_places(vectors_ND: Tensor, longest: int, *places: Tensor) -> tuple[Tensor, ...]:
    """The vectors of all processes at each of `places`, with gradient, in one message.

    No process holds more than `longest`, and the vector n of process r stands at r x longest + n. Each place
    may be asked for once. Nothing is read from the device.
    """
    gathered: tuple[Tensor, ...] = _Gather.apply(longest, vectors_ND, *places)
    return gathered


def gather_fields(*groups: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The same groups with the rows of all processes in rank order, without gradient, in one message.

    Tensors may be of any dtype, and each process may hold any number of rows of each.
    """
    tensors = [tensor.detach() for group in groups for tensor in group.values()]
    gathered = iter(_gather_any(tensors) if current().world > 1 else tensors)
    return [{name: next(gathered) for name in group} for group in groups]


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of each element over processes, without gradient."""
    total = value.detach().clone()
    if current().world > 1:
        with meeting("mean"):
            dist.all_reduce(total)
    return total / current().world


def agreed(flags: Sequence[bool]) -> list[bool]:
    """Flag by flag whether no process says no; as many as the process with most has."""
    if current().world == 1:
        return list(flags)
    own = torch.tensor(flags, dtype=torch.float32)
    padded = torch.ones(max(max(sizes) for sizes in _sizes([own])))
    padded[: len(own)] = own
    return (mean_over_processes(padded) == 1).tolist()


def in_turns(items: Iterable[Item]) -> Iterator[Item | None]:
    """The items, then None until no process has any left: all processes take as many turns."""
    own = iter(items)
    while True:
        item = next(own, None)
        if not mean_over_processes(torch.tensor(float(item is not None))):
            return
        yield item


def average_gradients(parameters: Iterable[Parameter]) -> None:
    """Replace each gradient by its mean over processes, in flat buckets; called once a step.

    An absent gradient counts as zero, in a single process too: the optimizer does the same on any number.
    Those of sharded weights are means already.
    """
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if current().world == 1:
        return
    for bucket in _buckets([p for p in trained if not isinstance(p, DTensor)]):
        gradients = [p.grad for p in bucket if p.grad is not None]
        flat = mean_over_processes(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def broadcast_parameters(parameters: Iterable[Parameter]) -> None:
    """Overwrite each parameter by the first process's, but for sharded ones."""
    if current().world > 1:
        with meeting("broadcast"):
            for parameter in parameters:
                if not isinstance(parameter, DTensor):
                    dist.broadcast(parameter.data, src=0)


def _buckets(parameters: list[Parameter]) -> Iterator[list[Parameter]]:
    """Consecutive parameters of one dtype and at most BUCKET_NUMEL elements, or one larger one."""
    bucket: list[Parameter] = []
    for parameter in parameters:
        numel = sum(p.numel() for p in bucket) + parameter.numel()
        if bucket and (numel > BUCKET_NUMEL or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _gather_any(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of any dtypes travel as bytes."""
    as_bytes = [t.contiguous().flatten().view(torch.uint8) for t in tensors]
    gathered = _gather_ragged(as_bytes, _sizes(as_bytes))
    return [all.view(t.dtype).view(-1, *t.shape[1:]) for all, t in zip(gathered, tensors, strict=True)]


def _sizes(tensors: Sequence[Tensor]) -> list[list[int]]:
    """How many rows of each tensor each process holds; told from host to host."""
    local = torch.tensor([len(t) for t in tensors])
    sizes = local.new_empty(current().world * len(tensors))
    with meeting("sizes"):
        _all_gather(sizes, local)
    return sizes.view(-1, len(tensors)).tolist()


def _gather_ragged(tensors: Sequence[Tensor], sizes: list[list[int]]) -> tuple[Tensor, ...]:
    """Every process sends its tensors end to end, padded to the longest; the padding is cut out again."""
    longest = max(map(sum, sizes))
    gathered = _gather_padded(tensors, longest)
    blocks = gathered.view(len(sizes), longest, *gathered.shape[1:])
    parts = [block[: sum(size)].split(size) for block, size in zip(blocks, sizes, strict=True)]
    return tuple(torch.cat([part[i] for part in parts]) for i in range(len(tensors)))


def _gather_padded(tensors: Sequence[Tensor], longest: int) -> Tensor:
    """The tensors of each process end to end and padded to `longest` rows, process by process."""
    padded = tensors[0].new_zeros(longest, *tensors[0].shape[1:])
    torch.cat(list(tensors), out=padded[: sum(map(len, tensors))])
    gathered = padded.new_empty(current().world * longest, *padded.shape[1:])
    with meeting("gather"):
        _all_gather(gathered, padded)
    return gathered


class _Gather(torch.autograd.Function):
    """The gradient of a vector is the sum of what all processes make of it."""

    @staticmethod
    def forward(ctx: Any, longest: int, vectors_ND: Tensor, *places: Tensor) -> tuple[Tensor, ...]:
        ctx.size, ctx.longest = len(vectors_ND), longest
        ctx.save_for_backward(*places)
        gathered = _gather_padded([vectors_ND], longest)
        return tuple(gathered.index_select(0, place) for place in places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded = gradients[0].new_zeros(current().world * ctx.longest, *gradients[0].shape[1:])
        for place, gradient in zip(ctx.saved_tensors, gradients, strict=True):
            padded.index_copy_(0, place, gradient)
        own = padded.new_empty(ctx.longest, *padded.shape[1:])
        with meeting("gradient of gather"):
            _reduce_scatter(own, padded)
        return None, own[: ctx.size], *(None for _ in gradients)
