"""Learning rate over the steps, and which parameters decay."""

import math
from collections.abc import Callable, Iterable

from torch.nn import Parameter
from torch.optim import AdamW

from embedtrain.config.distilling import Distil
from embedtrain.config.stages import Schedule, Train
from embedtrain.sharding import is_sharded

DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}


def lr_factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the peak learning rate is multiplied by at `step`, counted from 0.

    Warm-up rises in equal parts and reaches 1 at its last step; from there the decay falls to
    `final_fraction`, reached when the last step is done.
    """
    warmup = round(schedule.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    decay = DECAYS[schedule.kind]((step - warmup) / max(1, steps - warmup))
    if schedule.kind == "constant":
        return decay
    return schedule.final_fraction + (1 - schedule.final_fraction) * decay


def make_optimizer(named: Iterable[tuple[str, Parameter]], stage: Train | Distil) -> AdamW:
    """AdamW; norms and biases, all that has one dimension, do not decay."""
    parameters = [parameter for _, parameter in named]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    used = [group for group in groups if group["params"]]
    together = False if any(map(is_sharded, parameters)) else None  # torch joins no whole and sharded tensors
    return AdamW(used, lr=stage.lr, betas=stage.betas, foreach=together)
