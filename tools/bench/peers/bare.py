"""A bare PyTorch loop: AutoModel and PEFT as they come, each side padded to its longest, one pass."""

from typing import Any

from torch import Tensor

from tools.bench.peers.parts import Given, Stepped, infonce, mean_pool


class Bare(Stepped):
    """The reference of all others."""

    def encode(self, padded: dict[str, Tensor]) -> Tensor:
        """Unit vectors (T, D)."""
        return mean_pool(self.model(**padded).last_hidden_state, padded["attention_mask"])

    def backward(self, collated: Any) -> float:
        """Queries, documents, loss, backward."""
        loss = infonce(*(self.encode(self.moved(side)) for side in collated))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()


def open_peer(given: Given) -> Bare:
    """The loop's model and optimizer."""
    return Bare(given)
