"""GradCache (luyug/GradCache): its own cache step over two chunked encoders.

The package of that name on PyPI imports a module that it does not ship; the repository's `grad_cache` works.
"""

from typing import Any

from grad_cache import GradCache
from torch import Tensor, nn

from tools.bench.peers.parts import Given, Stepped, infonce, mean_pool


class Pooled(nn.Module):
    """The model with its pooling, as GradCache calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors (T, D)."""
        states_TLD = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return mean_pool(states_TLD, attention_mask)


class Cached(Stepped):
    """`mini_batch_size` texts of a padded batch at a time."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.mini_batch_size = 32
        self.encoder = Pooled(self.model)

    def backward(self, collated: Any) -> float:
        """Its cache step."""
        step: Any = GradCache([self.encoder] * 2, self.mini_batch_size, loss_fn=infonce)
        return float(step(*map(self.moved, collated)))


def open_peer(given: Given) -> Cached:
    """The model that GradCache is given."""
    return Cached(given)
