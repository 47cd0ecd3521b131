"""What a step ends with: gradients averaged over processes, clipped, and taken by the optimizer."""

from collections.abc import Sequence

from accelerate import Accelerator
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.dist import average_gradients
from embedtrain.sharding import clip_gradients, is_sharded


def average_and_clip(
    accelerator: Accelerator, named: Sequence[tuple[str, Parameter]], max_norm: float
) -> float:
    """Make all processes' gradients one; returns its norm before it was clipped, alike on all of them."""
    parameters = [p for _, p in named]
    average_gradients(parameters)
    clip = clip_gradients if any(map(is_sharded, parameters)) else accelerator.clip_grad_norm_
    return float(clip(parameters, max_norm))


def take_gradient(optimizer: Optimizer, lr: float) -> None:
    """Change the parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
