"""What a step ends with: gradients averaged over processes, clipped, and taken by the optimizer."""

from collections.abc import Sequence

from accelerate import Accelerator
from torch.nn import Parameter
from torch.optim import Optimizer

from embedtrain.config.errors import UserError
from embedtrain.dist import average_gradients
from embedtrain.sharding import clip_gradients, is_sharded


def update(
    accelerator: Accelerator,
    optimizer: Optimizer,
    named: Sequence[tuple[str, Parameter]],
    max_norm: float,
    lr: float,
    where: str,
) -> float:
    """Change the parameters; returns the norm of the gradient before it was clipped.

    Raises UserError, saying `where`, when the gradient is no number.
    """
    parameters = [p for _, p in named]
    average_gradients(parameters)
    sharded = any(map(is_sharded, parameters))
    clip = clip_gradients if sharded else accelerator.clip_grad_norm_
    norm = float(clip(parameters, max_norm))
    if not norm < float("inf"):
        raise UserError(
            f"{where}: the gradient norm is {norm}; lower lr, raise warmup_fraction, or train in float32"
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return norm
