"""FlagEmbedding: its decoder-only embedder, sub-batches padded as its collator pads them.

All sub-batches keep their graphs: it has no gradient cache. It reads `is_causal` from the checkpoint.
"""

from typing import Any

from FlagEmbedding.finetune.embedder.decoder_only.base import BiDecoderOnlyEmbedderModel
from torch import Tensor

from tools.bench.peers.parts import TEMPERATURE, Given, Stepped, pad
from tools.bench.workloads import Texts, Workload


class Flag(Stepped):
    """Its model called directly; `sub_batch_size` texts at a time."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.sub_batch_size = 32
        self.embedder = BiDecoderOnlyEmbedderModel(
            self.model, temperature=TEMPERATURE, sentence_pooling_method="mean", normalize_embeddings=True
        )
        self.embedder.train()

    def collate(self, batch: Workload) -> Any:
        """Sub-batches of both sides, each padded to its own longest."""
        return self.split(batch.queries), self.split(batch.documents)

    def split(self, texts: Texts) -> list[dict[str, Tensor]]:
        """Sub-batches of one side."""
        size = self.sub_batch_size
        return [pad(texts[start : start + size], self.pad_id) for start in range(0, len(texts), size)]

    def backward(self, collated: Any) -> float:
        """Its forward pass with the loss, then backward."""
        queries, documents = ([self.moved(part) for part in side] for side in collated)
        out = self.embedder(queries=queries, passages=documents)
        out.loss.backward()
        return float(out.loss)


def open_peer(given: Given) -> Flag:
    """Its embedder."""
    return Flag(given)
