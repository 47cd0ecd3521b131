"""Tevatron v3: its DenseModel as TevatronTrainer calls it; PyPI's tevatron is v1 and has no such module."""

from typing import Any

from tevatron.retriever.modeling import DenseModel

from tools.bench.peers.parts import TEMPERATURE, Given, Stepped


class Dense(Stepped):
    """One pass, each side padded to its longest."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.dense = DenseModel(self.model, pooling="mean", normalize=True, temperature=TEMPERATURE)
        self.dense.train()

    def backward(self, collated: Any) -> float:
        """Its forward pass with the loss, then backward."""
        queries, documents = map(self.moved, collated)
        out = self.dense(query=queries, passage=documents)
        out.loss.backward()
        return float(out.loss)


def open_peer(given: Given) -> Dense:
    """Its model."""
    return Dense(given)
