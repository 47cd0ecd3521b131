"""embedtrain: `train_step`, then clipping and AdamW as the training loop has them."""

from typing import Any

import torch
from accelerate import Accelerator

from embedtrain.batch import ContrastiveBatch, TokenBatch
from embedtrain.config.objective import Objective
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.config.stages import Train
from embedtrain.config.terms import InfoNCE
from embedtrain.config.tuning import Lora
from embedtrain.loss.objective import build_objective
from embedtrain.model.load import load_encoder
from embedtrain.model.lora import add_lora
from embedtrain.train.schedule import make_optimizer
from embedtrain.train.step import train_step
from embedtrain.train.update import average_and_clip, take_gradient
from tools.bench.peers.parts import LEARNING_RATE, MAX_NORM, TEMPERATURE, Given, Peer
from tools.bench.start import ALPHA, RANK
from tools.bench.workloads import Workload

OBJECTIVE = Objective(terms=(InfoNCE(kind="infonce", temperature=TEMPERATURE),))
STAGE = Train(
    name="bench",
    kind="train",
    tuning="lora",
    lora=Lora(rank=RANK, alpha=ALPHA),
    objective=OBJECTIVE,
    batch_size=2,
    steps=1,
    lr=LEARNING_RATE,
    max_gradient_norm=MAX_NORM,
)


class Ours(Peer):
    """`chunk_tokens` and `keep_tokens` are those of a machine file."""

    def __init__(self, given: Given) -> None:
        encoder = load_encoder(
            Base(model=str(given.folder)),
            EncoderConfig(),
            TextFormat(),
            precision=given.precision,
            device=given.device,
        )
        add_lora(encoder, Lora(rank=RANK, alpha=ALPHA), seed=0)
        self.model = self.encoder = encoder.to(given.device).train()
        self.backbone = encoder.backbone
        self.chunk_tokens, self.keep_tokens = 1024, 0
        self.named = encoder.trainable()
        self.optimizer = make_optimizer(self.named, STAGE)
        self.objective = build_objective(OBJECTIVE)
        self.accelerator: Any = Accelerator(cpu=given.device == "cpu")

    def collate(self, batch: Workload) -> ContrastiveBatch:
        """Tokens end to end."""
        return make_batch(batch)

    def backward(self, collated: ContrastiveBatch) -> float:
        """Encode, objective, backward."""
        figures = train_step(
            self.encoder,
            collated,
            self.objective,
            chunk_tokens=self.chunk_tokens,
            keep_tokens=self.keep_tokens,
        )
        return float(figures["loss"])

    def update(self) -> None:
        """Clip, step, drop the gradients."""
        average_and_clip(self.accelerator, self.named, MAX_NORM)
        take_gradient(self.optimizer, LEARNING_RATE)
        self.optimizer.zero_grad()


def make_batch(batch: Workload) -> ContrastiveBatch:
    """The workload as collate would make it: no two texts are the same, one positive a row."""
    rows, texts = batch.num_rows, batch.documents
    index_B = torch.arange(rows)
    group = len(texts) // rows
    return ContrastiveBatch(
        queries=TokenBatch.of(batch.queries),
        documents=TokenBatch.of(texts),
        query_index_B=index_B,
        query_key_B=-1 - index_B,
        label_B=torch.zeros(rows, dtype=torch.int64),
        graded_score_B=torch.full((rows,), torch.nan, dtype=torch.float64),
        owner_C=index_B.repeat_interleave(group),
        is_positive_C=torch.arange(len(texts)) % group == 0,
        document_key_C=1 + torch.arange(len(texts)),
        label_C=torch.zeros(len(texts), dtype=torch.int64),
        teacher_scores={},
        teacher_vectors=None,
        source="bench",
        draw_seed=0,
    )


def open_peer(given: Given) -> Ours:
    """Our encoder with its optimizer."""
    return Ours(given)
