"""Weights split among processes, by torch's FSDP2: each process holds a part of every matrix.

One policy: a layer's matrices are gathered when it runs and let go at once, forth and back, so no process
holds more than one or two layers whole. Gradients are averaged and split on the way back of every chunk. What
has one dimension, and what a caller names, stays whole on every process.
Every process must run the layers equally often, and in the same order, or all wait.

Files hold whole tensors: what is saved on any number of processes is read on any other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter

from embedtrain.dist import current, mean_over_processes


def shard_weights(
    model: nn.Module,
    layers: Iterable[nn.Module],
    device: str,
    *,
    whole: Collection[Parameter] = (),
    products: torch.dtype | None = None,
) -> None:
    """Split the matrices of each layer, then of the rest, among processes; they move to the device.

    `whole` are left as they are. With `products`, layers are gathered in that precision and their gradients
    summed in float32; the weights keep their own.
    """
    mesh = init_device_mesh(device, (current().world,))
    left_out = set(whole) | {p for p in model.parameters() if p.ndim < 2}
    policy = MixedPrecisionPolicy(products, torch.float32 if products else None, cast_forward_inputs=False)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=left_out)
    fully_shard(model, mesh=mesh, reshard_after_forward=True, ignored_params=left_out)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of it."""
    return isinstance(tensor, DTensor)


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is split put together on the first process's host, and left out elsewhere; all must come.

    Other tensors are given as they are.
    """
    found = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            found[name] = tensor
            continue
        with torch.no_grad():
            whole = tensor.full_tensor()
        if current().rank == 0:
            found[name] = whole.cpu()
    return found


def part_like(whole: Tensor, model: Tensor) -> Tensor:
    """This process's part of a tensor that all hold, split as `model` is; the tensor where that is not."""
    if not isinstance(model, DTensor) or whole.ndim == 0:
        return whole
    there = whole.to(model.device)
    return distribute_tensor(there, model.device_mesh, model.placements, src_data_rank=None)


def clip_gradients(parameters: Sequence[Parameter], max_norm: float) -> Tensor:
    """Scale gradients whose norm, over all parts and processes, is above `max_norm`; returns the norm."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    whole = [g for g in gradients if not isinstance(g, DTensor)]
    squared_whole = nn.utils.get_total_norm(whole).square()
    squared_parts = mean_over_processes(nn.utils.get_total_norm(parts).square()) * current().world
    norm = (squared_whole + squared_parts).sqrt()
    for gradient in (*parts, *whole):
        gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
